package backend

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

// stated are plugins that have nothing but a status.
type stated struct {
	Plugins
	all []pluginhost.Status
}

func (s stated) Status() []pluginhost.Status { return s.all }

// What the doctor says about a plugin depends on whether any generation of it is serving.
func TestDoctorOfPlugins(t *testing.T) {
	t.Parallel()
	serves := pluginhost.Status{Kind: "scaling", Name: "tide", State: pluginhost.Serving}
	ends := pluginhost.Status{Kind: "handler", Name: "math", State: pluginhost.Failed, LastError: "exit code 3"}
	no := Refusal{Kind: "scaling", Name: "tide", Message: "no ELF file"}
	for _, tc := range []struct {
		name    string
		all     stated
		refused []Refusal
		message string
		fix     string
	}{
		{"all serve", stated{all: []pluginhost.Status{serves}}, nil, "all 1 plugins serve", ""},
		{"one does not", stated{all: []pluginhost.Status{serves, ends}}, nil, "handler/math is failed (exit code 3)", "tasker plugin explain"},
		{"a new binary does not", stated{all: []pluginhost.Status{serves}}, []Refusal{no}, "for scaling/tide is not running: no ELF file", "the previous one keeps serving"},
		{"the first binary does not", stated{}, []Refusal{no}, "for scaling/tide is not running: no ELF file", "steps that need their handlers wait"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			b := &Backend{Parts: Parts{Plugins: tc.all, Refused: func() []Refusal { return tc.refused }}}
			c := b.pluginCheck()
			require.Contains(t, c.Message, tc.message)
			require.Contains(t, c.Fix, tc.fix)
			require.Equal(t, tc.fix == "", c.Status == readmodel.DoctorOK)
		})
	}
}
