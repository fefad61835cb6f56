package fulfillment

import (
	"encoding/json"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// The names of the handlers, as templates give them.
const (
	ValidateOrder    = "fulfillment.validate_order"
	ReserveInventory = "fulfillment.reserve_inventory"
	ProcessPayment   = "fulfillment.process_payment"
	ShipOrder        = "fulfillment.ship_order"
)

// The names of the steps whose results other steps read.
const (
	stepValidate = "validate_order"
	stepReserve  = "reserve_inventory"
	stepPay      = "process_payment"
)

// Handlers returns the handlers by name. The clock dates results, reservations
// and deliveries; pass time.Now.
func Handlers(now func() time.Time) map[string]handler.Handler {
	s := &service{now: now}
	return map[string]handler.Handler{
		ValidateOrder:    handler.Func(s.validateOrder),
		ReserveInventory: handler.Func(s.reserveInventory),
		ProcessPayment:   handler.Func(s.processPayment),
		ShipOrder:        handler.Func(s.shipOrder),
	}
}

type service struct {
	now func() time.Time
}

// timestamp returns the current time as it appears in results.
func (s *service) timestamp() string { return rfc3339(s.now()) }

func rfc3339(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// resultOf decodes the named step's result. A step that an operator resolved by
// hand has none; then, and if the result is not of the expected shape, the
// error is permanent and has the given code.
func resultOf[T any](step handler.Step, name, code string) (T, error) {
	var v T
	if isNull(step.Dependencies[name]) {
		return v, handler.Permanent(code, "step %s has no result", name)
	}
	if err := step.DecodeDependency(name, &v); err != nil {
		return v, handler.Permanent(code, "%v", err)
	}
	return v, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// answer returns v as the step's result, with the metadata beside it.
func answer(v any, metadata map[string]any) (handler.Result, error) {
	result, err := handler.JSON(v)
	result.Metadata = metadata
	return result, err
}
