package fulfillment

import (
	"encoding/json"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// order is the task's context.
type order struct {
	OrderID  string        `json:"order_id"`
	Customer customerInfo  `json:"customer_info"`
	Items    []*orderItem  `json:"order_items"`
	Payment  *paymentInfo  `json:"payment_info"`
	Shipping *shippingInfo `json:"shipping_info"`
}

type customerInfo struct {
	ID    json.RawMessage `json:"id"` // a number or a text: up to the shop
	Email string          `json:"email"`
	Tier  string          `json:"tier"`
}

// orderItem keeps its numbers as written: nil means missing, and validate_order
// decides whether the rest is valid.
type orderItem struct {
	ProductID *json.Number `json:"product_id"`
	Quantity  *json.Number `json:"quantity"`
	Price     *json.Number `json:"price"`
}

type paymentInfo struct {
	Method string       `json:"method"`
	Token  string       `json:"token"`
	Amount *json.Number `json:"amount"`
}

type shippingInfo struct {
	Address string `json:"address"`
	Method  string `json:"method"`
}

// orderOf reads the whole order in every step, although each step uses only a
// part of it, so that an order of the wrong shape fails before anything is
// reserved or charged.
func orderOf(step handler.Step) (order, error) {
	var o order
	if err := step.DecodeContext(&o); err != nil {
		return order{}, handler.Invalid(CodeInvalidContext, "the task's context is not an order: %v", err)
	}
	return o, nil
}
