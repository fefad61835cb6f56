package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/plugins/examples/arithmetic"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	plugintest.Conformance(t, plugin(),
		plugintest.Example(arithmetic.SquareInput, plugintest.Step{Context: json.RawMessage(`{"even_number":6}`)}),
		plugintest.Example(arithmetic.Square, plugintest.Step{
			Config:       json.RawMessage(`{"of":"a"}`),
			Dependencies: map[string]any{"a": 36},
		}),
		plugintest.Example(arithmetic.SquareProduct, plugintest.Step{
			Config:       json.RawMessage(`{"of":["a","b"]}`),
			Dependencies: map[string]any{"a": 2, "b": 3},
		}),
	)
}

// Numbers beyond any machine word cross the process boundary digit by digit, in
// the result and in the metadata.
func TestBigNumbersOnTheWire(t *testing.T) {
	t.Parallel()
	got := plugintest.Run(t, arithmetic.Handlers()[arithmetic.SquareProduct], plugintest.Step{
		Context:      json.RawMessage(`{"even_number":4}`),
		Config:       json.RawMessage(`{"of":["a","b"],"verify_exponent":64}`),
		Dependencies: map[string]any{"a": json.RawMessage(`4294967296`), "b": json.RawMessage(`4294967296`)},
	})
	require.Nil(t, got.Failure)
	require.Equal(t, "340282366920938463463374607431768211456", string(got.Result))
	require.Contains(t, string(got.Metadata), `"multiplied":18446744073709551616`)
	require.Contains(t, string(got.Metadata), `"expected_result":340282366920938463463374607431768211456`)
}

func TestOddNumberOnTheWire(t *testing.T) {
	t.Parallel()
	got := plugintest.Run(t, arithmetic.Handlers()[arithmetic.SquareInput], plugintest.Step{
		Context: json.RawMessage(`{"even_number":7}`),
	})
	require.Equal(t, &plugintest.Failure{
		Type: vocab.ValidationError, Code: arithmetic.CodeNotEven, Message: "Task context must contain an even number",
	}, got.Failure)
}
