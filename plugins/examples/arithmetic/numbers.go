package arithmetic

import (
	"encoding/json"
	"math/big"
	"strings"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// settings is the configuration that every handler of the package accepts.
type settings struct {
	// StepType describes in the metadata the position of the step in its workflow.
	StepType string `json:"step_type"`
	// VerifyExponent makes the step compare its result with the task's even_number to
	// this power and record the outcome in the metadata. The comparison never fails
	// the step. Zero means none.
	VerifyExponent int64 `json:"verify_exponent"`
}

// maxVerifyExponent keeps a mistyped exponent from occupying the plugin.
const maxVerifyExponent = 1024

func decodeConfig(step handler.Step, cfg any) error {
	if err := step.DecodeConfig(cfg); err != nil {
		return handler.Permanent(CodeBadConfig, "step %s: %v", step.Name, err)
	}
	return nil
}

// verification is what a final step records about its own result.
type verification struct {
	OriginalNumber *big.Int `json:"original_number"`
	ExpectedResult *big.Int `json:"expected_result"`
	ActualResult   *big.Int `json:"actual_result"`
	Matches        bool     `json:"matches"`
}

func answer(step handler.Step, cfg settings, n *big.Int, metadata map[string]any) (handler.Result, error) {
	if err := checkSize(step.Name, n); err != nil {
		return handler.Result{}, err
	}
	if cfg.StepType != "" {
		metadata["step_type"] = cfg.StepType
	}
	if cfg.VerifyExponent != 0 {
		v, err := verify(step, cfg.VerifyExponent, n)
		if err != nil {
			return handler.Result{}, err
		}
		metadata["verification"] = v
	}
	result, err := handler.JSON(n)
	result.Metadata = metadata
	return result, err
}

func verify(step handler.Step, exponent int64, actual *big.Int) (verification, error) {
	if exponent < 0 || exponent > maxVerifyExponent {
		return verification{}, handler.Permanent(CodeBadConfig,
			"config of step %s: verify_exponent is %d, want 1 to %d", step.Name, exponent, maxVerifyExponent)
	}
	n, err := evenNumber(step)
	if err != nil {
		return verification{}, err
	}
	expected := new(big.Int).Exp(n, big.NewInt(exponent), nil)
	return verification{
		OriginalNumber: n,
		ExpectedResult: expected,
		ActualResult:   actual,
		Matches:        expected.Cmp(actual) == 0,
	}, nil
}

// evenNumber reads the workflow's input. The reference raises a plain error here,
// which counts as unexpected and retryable. As no retry makes an odd number even,
// ours is a ValidationError, and the task fails at once.
func evenNumber(step handler.Step) (*big.Int, error) {
	var in struct {
		EvenNumber json.RawMessage `json:"even_number"`
	}
	if err := step.DecodeContext(&in); err != nil {
		return nil, handler.Invalid(CodeNotEven, "Task context must contain an even number: %v", err)
	}
	// The limit is far below MaxDigits: the deepest example raises to the 64th power.
	n, ok := parseInteger(in.EvenNumber, MaxDigits/100)
	if !ok || n.Bit(0) != 0 {
		return nil, handler.Invalid(CodeNotEven, "Task context must contain an even number")
	}
	return n, nil
}

// parentResult reads the integer that the named step ended with.
func parentResult(step handler.Step, name string) (*big.Int, error) {
	raw := step.Dependencies[name]
	if len(raw) == 0 || string(raw) == "null" { // null: an operator resolved the step by hand, without a result
		return nil, handler.Permanent(CodeMissingResult, "%s result not found", humanName(name))
	}
	n, ok := parseInteger(raw, MaxDigits)
	if !ok {
		return nil, handler.Permanent(CodeNotInteger,
			"%s result is not an integer of at most %d digits: %.40s", humanName(name), MaxDigits, raw)
	}
	return n, nil
}

// parseInteger reads a JSON number of at most maxLen bytes as an integer. It also
// accepts 6.0, which JSON Schema calls an integer, but no exponents: seven bytes such
// as 1e99999 would become a hundred thousand digits.
func parseInteger(raw json.RawMessage, maxLen int) (*big.Int, bool) {
	if len(raw) > maxLen {
		return nil, false
	}
	whole, fraction, _ := strings.Cut(string(raw), ".")
	if strings.Trim(fraction, "0") != "" {
		return nil, false
	}
	return new(big.Int).SetString(whole, 10)
}

func checkSize(step string, n *big.Int) error {
	const bitsPerDigit = 3.33 // log2(10), rounded up
	if float64(n.BitLen()) > MaxDigits*bitsPerDigit {
		return handler.Permanent(CodeTooLarge, "the result of step %s has more than %d digits", step, MaxDigits)
	}
	return nil
}

// humanName turns linear_step_1 into "Linear step 1".
func humanName(step string) string {
	words := strings.ReplaceAll(step, "_", " ")
	if words == "" {
		return "Parent"
	}
	return strings.ToUpper(words[:1]) + words[1:]
}
