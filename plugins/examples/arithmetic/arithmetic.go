// Package arithmetic holds the handlers of the four example workflows that square an even
// number along a chain, a diamond, a tree and a mixed DAG. The handlers know no workflows: the
// templates in this directory define which step squares what. Results are integers of any
// length, exact to the last digit: the mixed DAG reaches 2^128 for an input of 4.
//
// Nothing here is started or stopped: plugins/handlers/arithmetic serves it.
package arithmetic

import (
	"context"
	"math/big"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// The names of the handlers, as templates give them.
const (
	SquareInput   = "math.square_input"   // squares even_number of the task's context
	Square        = "math.square"         // squares the result of one step: config of: step
	SquareProduct = "math.square_product" // multiplies the results of steps, then squares: config of: [steps]
)

// The codes of the errors that the handlers return. All are permanent: the same input fails the
// same way on every attempt.
const (
	CodeNotEven       = "EVEN_NUMBER_REQUIRED"      // the context has no even_number, or it is not an even integer
	CodeMissingResult = "MISSING_PARENT_RESULT"     // a step to read from has no result
	CodeNotInteger    = "PARENT_RESULT_NOT_INTEGER" // a step to read from ended with something other than an integer
	CodeTooLarge      = "NUMBER_TOO_LARGE"          // a number has more than MaxDigits digits
	CodeBadConfig     = "INVALID_STEP_CONFIG"       // the template configures the step wrongly
)

// MaxDigits limits the numbers that the handlers compute with, so that a template that keeps
// squaring ends with an error instead of using up all memory.
const MaxDigits = 100_000

// Handlers returns the handlers by name.
func Handlers() map[string]handler.Handler {
	return map[string]handler.Handler{
		SquareInput:   handler.Func(squareInput),
		Square:        handler.Func(square),
		SquareProduct: handler.Func(squareProduct),
	}
}

func squareInput(_ context.Context, step handler.Step) (handler.Result, error) {
	var cfg struct{ settings }
	if err := decodeConfig(step, &cfg); err != nil {
		return handler.Result{}, err
	}
	n, err := evenNumber(step)
	if err != nil {
		return handler.Result{}, err
	}
	return answer(step, cfg.settings, squareOf(n), map[string]any{"operation": "square"})
}

func square(_ context.Context, step handler.Step) (handler.Result, error) {
	var cfg struct {
		settings
		Of string `json:"of"`
	}
	if err := decodeConfig(step, &cfg); err != nil {
		return handler.Result{}, err
	}
	if cfg.Of == "" {
		return handler.Result{}, handler.Permanent(CodeBadConfig, "config of step %s: of must name the step to square", step.Name)
	}
	n, err := parentResult(step, cfg.Of)
	if err != nil {
		return handler.Result{}, err
	}
	return answer(step, cfg.settings, squareOf(n), map[string]any{"operation": "square"})
}

func squareProduct(_ context.Context, step handler.Step) (handler.Result, error) {
	var cfg struct {
		settings
		Of []string `json:"of"`
	}
	if err := decodeConfig(step, &cfg); err != nil {
		return handler.Result{}, err
	}
	if len(cfg.Of) == 0 {
		return handler.Result{}, handler.Permanent(CodeBadConfig, "config of step %s: of must list the steps to multiply", step.Name)
	}
	product := big.NewInt(1)
	for _, name := range cfg.Of {
		n, err := parentResult(step, name)
		if err != nil {
			return handler.Result{}, err
		}
		product.Mul(product, n)
		if err := checkSize(step.Name, product); err != nil {
			return handler.Result{}, err
		}
	}
	metadata := map[string]any{"operation": "multiply_and_square", "multiplied": product}
	return answer(step, cfg.settings, squareOf(product), metadata)
}

func squareOf(n *big.Int) *big.Int { return new(big.Int).Mul(n, n) }
