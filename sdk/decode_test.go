package sdk

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// stepOf returns a step as the generated code reads it.
func stepOf(s *pluginv1.Step) handler.Step {
	in := handler.Step{
		TaskUUID: s.GetTaskUuid(), StepUUID: s.GetStepUuid(), Namespace: s.GetNamespace(), Task: s.GetTaskName(),
		Version: s.GetTaskVersion(), Name: s.GetStepName(), Handler: s.GetHandler(),
		Attempt: int(s.GetAttempt()), MaxAttempts: int(s.GetMaxAttempts()),
		IdempotencyKey: s.GetIdempotencyKey(), LeaseID: s.GetLeaseId(),
		Context: s.GetContext(), Config: s.GetConfig(), Traceparent: s.GetTrace()["traceparent"],
	}
	for _, d := range s.GetDependencies() {
		if in.Dependencies == nil {
			in.Dependencies = map[string]json.RawMessage{}
		}
		in.Dependencies[d.GetStepName()] = d.GetResult()
	}
	return in
}

func genStep(t *rapid.T) *pluginv1.Step {
	text := rapid.StringN(0, 40, 120)
	value := rapid.SliceOfN(rapid.Byte(), 0, 300)
	s := &pluginv1.Step{
		CallId: rapid.Uint64().Draw(t, "call"), Handler: text.Draw(t, "handler"), TaskUuid: text.Draw(t, "task"), StepUuid: text.Draw(t, "step"),
		Namespace: text.Draw(t, "namespace"), TaskName: text.Draw(t, "task name"), TaskVersion: text.Draw(t, "version"), StepName: text.Draw(t, "name"),
		Attempt: rapid.Uint32().Draw(t, "attempt"), MaxAttempts: rapid.Uint32().Draw(t, "max attempts"),
		IdempotencyKey: text.Draw(t, "key"), LeaseId: text.Draw(t, "lease"),
		Context: value.Draw(t, "context"), Config: value.Draw(t, "config"), TimeoutMs: rapid.Uint32().Draw(t, "timeout"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "dependencies") {
		s.Dependencies = append(s.Dependencies, &pluginv1.Dependency{StepName: text.Draw(t, "dependency"), Result: value.Draw(t, "result")})
	}
	if rapid.Bool().Draw(t, "followed") {
		s.Trace = map[string]string{"traceparent": text.Draw(t, "trace"), text.Draw(t, "header"): "x"}
	}
	return s
}

// requireSame compares a step with what the generated code reads from its bytes.
func requireSame(t *rapid.T, raw []byte) {
	var want pluginv1.Step
	wantErr := proto.Unmarshal(raw, &want)
	var got handler.Step
	id, timeout, err := decodeStep(bytes.Clone(raw), &got)
	if wantErr != nil {
		require.Error(t, err, wantErr)
		return
	}
	require.NoError(t, err)
	require.Equal(t, want.GetCallId(), id)
	require.Equal(t, want.GetTimeoutMs(), timeout)
	expected := stepOf(&want)
	for name, value := range expected.Dependencies {
		require.True(t, bytes.Equal(value, got.Dependencies[name]), name)
	}
	require.Len(t, got.Dependencies, len(expected.Dependencies))
	require.True(t, bytes.Equal(expected.Context, got.Context))
	require.True(t, bytes.Equal(expected.Config, got.Config))
	expected.Dependencies, expected.Context, expected.Config = got.Dependencies, got.Context, got.Config
	require.Equal(t, expected, got)
}

// A step is read as the generated code reads it, even if it is a concatenation of
// parts from different encoders, or has unknown fields.
func TestStepIsReadAsGenerated(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw, err := proto.Marshal(genStep(t))
		require.NoError(t, err)
		if rapid.Bool().Draw(t, "strange") {
			raw = append(raw, 0xa2, 0x06, 3, 1, 2, 3, 0xad, 0x06, 1, 2, 3, 4) // fields 100 and 101
			more, err := proto.Marshal(genStep(t))
			require.NoError(t, err)
			raw = append(raw, more...)
		}
		requireSame(t, raw)
	})
}

// Whatever the generated code refuses is refused.
func TestStepThatIsDamaged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		raw, err := proto.Marshal(genStep(t))
		require.NoError(t, err)
		for range rapid.IntRange(0, 3).Draw(t, "damages") {
			if len(raw) > 0 {
				raw[rapid.IntRange(0, len(raw)-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
			}
		}
		requireSame(t, raw[:rapid.IntRange(0, len(raw)).Draw(t, "cut")])
	})
}

// Appending to a value in a handler does not overwrite the others.
func TestValuesOfAStepAreApart(t *testing.T) {
	t.Parallel()
	raw, err := proto.Marshal(&pluginv1.Step{
		Context: []byte(`{"a":1}`), Config: []byte(`{"b":2}`),
		Dependencies: []*pluginv1.Dependency{{StepName: "x", Result: []byte("1")}, {StepName: "y", Result: []byte("2")}},
	})
	require.NoError(t, err)
	var in handler.Step
	_, _, err = decodeStep(raw, &in)
	require.NoError(t, err)
	_ = append(in.Context, "!!!!!!!!!!!!"...)
	_ = append(in.Dependencies["x"], "!!!!!!!!!!!!"...)
	require.Equal(t, `{"b":2}`, string(in.Config))
	require.Equal(t, "2", string(in.Dependencies["y"]))
}

// The packed messages match those of the contract: a change there is needed here,
// too.
func TestPackedMessagesAreTheSame(t *testing.T) {
	t.Parallel()
	for packed, whole := range map[proto.Message]proto.Message{
		&pluginv1.PackedWorkRequest{}: &pluginv1.WorkRequest{}, &pluginv1.PackedWorkResponse{}: &pluginv1.WorkResponse{},
	} {
		a, b := packed.ProtoReflect().Descriptor().Fields(), whole.ProtoReflect().Descriptor().Fields()
		require.Equal(t, b.Len(), a.Len())
		for i := range b.Len() {
			require.Equal(t, b.Get(i).Number(), a.Get(i).Number())
			require.Equal(t, b.Get(i).Name(), a.Get(i).Name())
			require.Equal(t, b.Get(i).Cardinality(), a.Get(i).Cardinality())
		}
	}
	fields := (&pluginv1.Step{}).ProtoReflect().Descriptor().Fields()
	require.Equal(t, int(fieldTrace), fields.Len(), "a field of a step is new: decodeStep does not read it")
}
