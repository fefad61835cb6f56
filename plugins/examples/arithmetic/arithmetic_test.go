package arithmetic_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/plugins/examples/arithmetic"
	"github.com/tasker-systems/tasker-host/plugins/examples/internal/dagtest"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func template(t testing.TB, name string) dagtest.Template {
	t.Helper()
	return dagtest.Load(t, "templates/"+name+".yaml")
}

func input(n any) string { return fmt.Sprintf(`{"even_number": %v}`, n) }

// The numbers documented for the reference, digit by digit.
func TestDocumentedResults(t *testing.T) {
	t.Parallel()
	type results map[string]string
	tests := []struct {
		template string
		n        int
		want     results
	}{
		{"linear", 2, results{"linear_step_1": "4", "linear_step_2": "16", "linear_step_3": "256", "linear_step_4": "65536"}},
		{"linear", 6, results{"linear_step_1": "36", "linear_step_2": "1296", "linear_step_3": "1679616", "linear_step_4": "2821109907456"}},
		{"linear", 8, results{"linear_step_1": "64", "linear_step_2": "4096", "linear_step_3": "16777216", "linear_step_4": "281474976710656"}},
		{"linear", 10, results{"linear_step_1": "100", "linear_step_2": "10000", "linear_step_3": "100000000", "linear_step_4": "10000000000000000"}},

		{"diamond", 4, results{"diamond_start": "16", "diamond_branch_b": "256", "diamond_branch_c": "256", "diamond_end": "4294967296"}},
		{"diamond", 8, results{"diamond_start": "64", "diamond_branch_b": "4096", "diamond_branch_c": "4096", "diamond_end": "281474976710656"}},
		{"diamond", 10, results{"diamond_start": "100", "diamond_branch_b": "10000", "diamond_branch_c": "10000", "diamond_end": "10000000000000000"}},

		{"tree", 2, results{
			"tree_root": "4", "tree_branch_left": "16", "tree_branch_right": "16",
			"tree_leaf_d": "256", "tree_leaf_e": "256", "tree_leaf_f": "256", "tree_leaf_g": "256",
			"tree_final_convergence": "18446744073709551616",
		}},

		{"mixed_dag", 2, results{
			"dag_init": "4", "dag_process_left": "16", "dag_process_right": "16", "dag_validate": "65536",
			"dag_transform": "256", "dag_analyze": "256", "dag_finalize": "18446744073709551616",
		}},
		{"mixed_dag", 4, results{
			"dag_init": "16", "dag_process_left": "256", "dag_process_right": "256", "dag_validate": "4294967296",
			"dag_transform": "65536", "dag_analyze": "65536", "dag_finalize": "340282366920938463463374607431768211456",
		}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%s of %d", tt.template, tt.n), func(t *testing.T) {
			t.Parallel()
			run := template(t, tt.template).Execute(t, arithmetic.Handlers(), "", input(tt.n))
			require.NoError(t, run.Err)
			got := results{}
			for step, value := range run.Results {
				got[step] = string(value)
			}
			require.Equal(t, tt.want, got)
		})
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	tests := []struct{ template, step, input, want string }{
		{"linear", "linear_step_1", input(6), `{"operation":"square","step_type":"initial"}`},
		{"linear", "linear_step_2", input(6), `{"operation":"square","step_type":"intermediate"}`},
		{"linear", "linear_step_3", input(6), `{"operation":"square","step_type":"single_parent"}`},
		{"linear", "linear_step_4", input(6), `{"operation":"square","step_type":"final","verification":{` +
			`"original_number":6,"expected_result":1679616,"actual_result":2821109907456,"matches":false}}`},
		{"diamond", "diamond_end", input(4), `{"multiplied":65536,"operation":"multiply_and_square","step_type":"multiple_parent_final","verification":{` +
			`"original_number":4,"expected_result":4294967296,"actual_result":4294967296,"matches":true}}`},
		{"tree", "tree_final_convergence", input(2), `{"multiplied":4294967296,"operation":"multiply_and_square","step_type":"multiple_parent_final","verification":{` +
			`"original_number":2,"expected_result":4294967296,"actual_result":18446744073709551616,"matches":false}}`},
		{"mixed_dag", "dag_finalize", input(4), `{"multiplied":18446744073709551616,"operation":"multiply_and_square","step_type":"multiple_parent_final","verification":{` +
			`"original_number":4,"expected_result":340282366920938463463374607431768211456,"actual_result":340282366920938463463374607431768211456,"matches":true}}`},
	}
	for _, tt := range tests {
		t.Run(tt.step, func(t *testing.T) {
			t.Parallel()
			run := template(t, tt.template).Execute(t, arithmetic.Handlers(), "", tt.input)
			require.NoError(t, run.Err)
			require.Equal(t, tt.want, string(run.Metadata[tt.step]))
		})
	}
}

func TestResultsAreExactForEveryEvenNumber(t *testing.T) {
	t.Parallel()
	tests := []struct {
		template, last string
		exponent       int64
	}{
		{"linear", "linear_step_4", 16},
		{"diamond", "diamond_end", 16},
		{"tree", "tree_final_convergence", 64},
		{"mixed_dag", "dag_finalize", 64},
	}
	for _, tt := range tests {
		t.Run(tt.template, func(t *testing.T) {
			t.Parallel()
			tmpl := template(t, tt.template)
			rapid.Check(t, func(rt *rapid.T) {
				// Far beyond the range of the schema, up to 60 digits and below zero.
				half, ok := new(big.Int).SetString(rapid.StringMatching(`-?[1-9][0-9]{0,59}`).Draw(rt, "half"), 10)
				require.True(rt, ok)
				n := half.Lsh(half, 1)
				run := tmpl.Execute(t, arithmetic.Handlers(), "", input(n))
				require.NoError(rt, run.Err)
				want := new(big.Int).Exp(n, big.NewInt(tt.exponent), nil)
				require.Equal(rt, want.String(), string(run.Results[tt.last]))
			})
		})
	}
}

func TestInputThatIsNoEvenNumber(t *testing.T) {
	t.Parallel()
	for _, taskContext := range []string{
		``, `{}`, input(7), input(-3), input("null"), input("2.5"), input("1e2"), input(`"6"`), input("true"), input("[2]"),
		input("1" + strings.Repeat("0", 1000)), `[]`,
	} {
		t.Run(fmt.Sprintf("%.40s", taskContext), func(t *testing.T) {
			t.Parallel()
			for _, name := range []string{"linear", "diamond", "tree", "mixed_dag"} {
				tmpl := template(t, name)
				run := tmpl.Execute(t, arithmetic.Handlers(), "", taskContext)
				require.Equal(t, tmpl.Steps[0].Name, run.Failed)
				err := dagtest.RequireError(t, run.Err, arithmetic.CodeNotEven)
				require.Equal(t, vocab.ValidationError, err.Type)
				require.Contains(t, err.Message, "Task context must contain an even number")
			}
		})
	}
}

func TestWholeNumbersWithZeroFraction(t *testing.T) {
	t.Parallel()
	run := template(t, "linear").Execute(t, arithmetic.Handlers(), "", input("6.0"))
	require.NoError(t, run.Err)
	require.Equal(t, "2821109907456", string(run.Results["linear_step_4"]))
}

func TestParentResults(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, handler, config, parent, code, message string }{
		{"absent", arithmetic.Square, `{"of":"linear_step_3"}`, ``, arithmetic.CodeMissingResult, "Linear step 3 result not found"},
		{"resolved by hand", arithmetic.Square, `{"of":"linear_step_3"}`, `null`, arithmetic.CodeMissingResult, "Linear step 3 result not found"},
		{"one of several absent", arithmetic.SquareProduct, `{"of":["linear_step_3","dag_analyze"]}`, `2`, arithmetic.CodeMissingResult, "Dag analyze result not found"},
		{"text", arithmetic.Square, `{"of":"linear_step_3"}`, `"16"`, arithmetic.CodeNotInteger, `Linear step 3 result is not an integer of at most 100000 digits: "16"`},
		{"fraction", arithmetic.SquareProduct, `{"of":["linear_step_3"]}`, `1.5`, arithmetic.CodeNotInteger, "Linear step 3 result is not an integer of at most 100000 digits: 1.5"},
		{"grown too large", arithmetic.Square, `{"of":"linear_step_3"}`, strings.Repeat("9", 60_000), arithmetic.CodeTooLarge, "the result of step final has more than 100000 digits"},
		{"product too large", arithmetic.SquareProduct, `{"of":["linear_step_3","linear_step_3"]}`, strings.Repeat("9", 60_000), arithmetic.CodeTooLarge, "the result of step final has more than 100000 digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			step := handler.Step{Name: "final", Config: json.RawMessage(tt.config), Dependencies: map[string]json.RawMessage{}}
			if tt.parent != "" {
				step.Dependencies["linear_step_3"] = json.RawMessage(tt.parent)
			}
			_, err := arithmetic.Handlers()[tt.handler].Handle(t.Context(), step)
			classified := dagtest.RequireError(t, err, tt.code)
			require.Equal(t, vocab.PermanentError, classified.Type)
			require.Equal(t, tt.message, classified.Message)
		})
	}
}

func TestStepConfigOfTheWrongShape(t *testing.T) {
	t.Parallel()
	tests := []struct{ handler, config string }{
		{arithmetic.SquareInput, `{"step_type":1}`},
		{arithmetic.SquareInput, `{"verify_exponent":1025}`},
		{arithmetic.SquareInput, `{"verify_exponent":-1}`},
		{arithmetic.Square, `{}`},
		{arithmetic.Square, `{"of":["a"]}`},
		{arithmetic.SquareProduct, `{}`},
		{arithmetic.SquareProduct, `{"of":"a"}`},
	}
	for _, tt := range tests {
		t.Run(tt.handler+" "+tt.config, func(t *testing.T) {
			t.Parallel()
			_, err := arithmetic.Handlers()[tt.handler].Handle(t.Context(), handler.Step{
				Name: "s", Context: json.RawMessage(input(2)), Config: json.RawMessage(tt.config),
			})
			require.Equal(t, vocab.PermanentError, dagtest.RequireError(t, err, arithmetic.CodeBadConfig).Type)
		})
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		file, namespace, name string
		steps, maximum        int
		parents               map[string][]string
	}{
		{"linear", "linear_workflow", "mathematical_sequence", 4, 100, map[string][]string{
			"linear_step_1": nil, "linear_step_4": {"linear_step_3"},
		}},
		{"diamond", "diamond_workflow", "parallel_computation", 4, 100, map[string][]string{
			"diamond_end": {"diamond_branch_b", "diamond_branch_c"},
		}},
		{"tree", "tree_workflow", "hierarchical_computation", 8, 20, map[string][]string{
			"tree_final_convergence": {"tree_leaf_d", "tree_leaf_e", "tree_leaf_f", "tree_leaf_g"},
		}},
		{"mixed_dag", "mixed_dag_workflow", "complex_dag_computation", 7, 10, map[string][]string{
			"dag_validate": {"dag_process_left", "dag_process_right"},
			"dag_finalize": {"dag_validate", "dag_transform", "dag_analyze"},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			t.Parallel()
			tmpl := template(t, tt.file)
			require.Equal(t, []string{tt.namespace, tt.name, "1.0.0"}, []string{tmpl.Namespace, tmpl.Name, tmpl.Version})
			require.Len(t, tmpl.Steps, tt.steps)
			require.Equal(t, dagtest.Override{
				Retry:   dagtest.Retry{MaxAttempts: 3, Backoff: "exponential", Base: "1s", Cap: "30s"},
				Timeout: "30s",
			}, tmpl.Defaults)
			even, ok := tmpl.InputSchema["properties"].(map[string]any)["even_number"].(map[string]any)
			require.True(t, ok)
			require.EqualValues(t, 2, even["minimum"])
			require.EqualValues(t, tt.maximum, even["maximum"])
			for name, parents := range tt.parents {
				require.Equal(t, parents, tmpl.Step(t, name).DependsOn, name)
			}
			require.Equal(t, "10s", tmpl.Environments["test"].Steps["ALL"].Timeout)
		})
	}
}

// The schema refuses anything but a number in range, and leaves odd numbers to the
// first step: their tasks are created, and fail with a message.
func TestInputSchema(t *testing.T) {
	t.Parallel()
	for name, maximum := range map[string]int{"linear": 100, "diamond": 100, "tree": 20, "mixed_dag": 10} {
		tmpl := template(t, name)
		for _, accepted := range []string{input(2), input(7), input("6.0"), input(maximum)} {
			require.NoError(t, tmpl.Accepts(t, accepted), "%s %s", name, accepted)
		}
		for _, refused := range []string{`{}`, `[]`, input(0), input(-2), input(maximum + 2), input(2.5), input("null"), input(`"6"`)} {
			require.Error(t, tmpl.Accepts(t, refused), "%s %s", name, refused)
		}
	}
}

func TestSampleInputs(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]struct{ template, last, result string }{
		"linear":      {"linear", "linear_step_4", "2821109907456"},
		"diamond":     {"diamond", "diamond_end", "4294967296"},
		"tree":        {"tree", "tree_final_convergence", "18446744073709551616"},
		"mixed_dag":   {"mixed_dag", "dag_finalize", "340282366920938463463374607431768211456"},
		"mixed_dag_2": {"mixed_dag", "dag_finalize", "18446744073709551616"},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			sample, err := os.ReadFile("inputs/" + file + ".json")
			require.NoError(t, err)
			require.NoError(t, template(t, want.template).Accepts(t, string(sample)))
			run := template(t, want.template).Execute(t, arithmetic.Handlers(), "test", string(sample))
			require.NoError(t, run.Err)
			require.Equal(t, want.result, string(run.Results[want.last]))
		})
	}
}
