package fulfillment

import (
	"context"
	"encoding/json"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// The limits of an order.
const (
	maxLines          = 50
	maxQuantity int64 = 1_000_000 // per line; keeps every sum of cents within 64 bits

	maxOrderTotal    Money = 50_000_00
	maxPaymentAmount Money = 10_000_00
	minPaymentAmount Money = 1
)

// validation is the result of validate_order.
type validation struct {
	CustomerValidated bool            `json:"customer_validated"`
	CustomerID        json.RawMessage `json:"customer_id"`
	ValidatedItems    []validatedItem `json:"validated_items"`
	OrderTotal        *Money          `json:"order_total"`
	ValidationStatus  string          `json:"validation_status"`
	ValidatedAt       string          `json:"validated_at"`
}

type validatedItem struct {
	ProductID      int64  `json:"product_id"`
	ProductName    string `json:"product_name"`
	Quantity       int64  `json:"quantity"`
	UnitPrice      Money  `json:"unit_price"`
	LineTotal      Money  `json:"line_total"`
	AvailableStock int64  `json:"available_stock"`
	Category       string `json:"category"`
}

// validateOrder checks the order against the catalogue and the limits, and
// computes its total. It does not check the stock, which may change until the
// reservation.
func (s *service) validateOrder(_ context.Context, step handler.Step) (handler.Result, error) {
	o, err := orderOf(step)
	if err != nil {
		return handler.Result{}, err
	}
	if err := checkOrder(o); err != nil {
		return handler.Result{}, err
	}
	items, total, err := validateItems(o.Items)
	if err != nil {
		return handler.Result{}, err
	}
	if err := checkValue(total, o.Payment); err != nil {
		return handler.Result{}, err
	}
	metadata := map[string]any{"operation": "validate_order", "item_count": len(items)}
	if o.Customer.Tier == "premium" {
		metadata["processing_priority"] = "high"
		metadata["expedited_shipping"] = true
	}
	return answer(validation{
		CustomerValidated: true,
		CustomerID:        o.Customer.ID,
		ValidatedItems:    items,
		OrderTotal:        &total,
		ValidationStatus:  "complete",
		ValidatedAt:       s.timestamp(),
	}, metadata)
}

func checkOrder(o order) error {
	switch {
	case isNull(o.Customer.ID) || string(o.Customer.ID) == `""`:
		return handler.Permanent(CodeMissingCustomerID, "customer_info.id is required")
	case o.Customer.Email == "":
		return handler.Permanent(CodeMissingCustomerEmail, "customer_info.email is required")
	case len(o.Items) == 0:
		return handler.Permanent(CodeMissingOrderItems, "order_items must list at least one item")
	case len(o.Items) > maxLines:
		return handler.Permanent(CodeMaxItemsExceeded, "order_items lists %d items, at most %d are accepted", len(o.Items), maxLines)
	default:
		return nil
	}
}

func validateItems(items []*orderItem) ([]validatedItem, Money, error) {
	var total Money
	validated := make([]validatedItem, 0, len(items))
	for i, item := range items {
		v, err := validateItem(i, item)
		if err != nil {
			return nil, 0, err
		}
		total += v.LineTotal
		validated = append(validated, v)
	}
	return validated, total, nil
}

func validateItem(i int, item *orderItem) (validatedItem, error) {
	if item == nil || item.ProductID == nil || item.Quantity == nil || item.Price == nil {
		return validatedItem{}, handler.Permanent(CodeInvalidOrderItem,
			"order_items[%d] must have product_id, quantity and price", i)
	}
	quantity, ok := parseWhole(item.Quantity.String())
	if !ok || quantity <= 0 || quantity > maxQuantity {
		return validatedItem{}, handler.Permanent(CodeInvalidQuantity,
			"order_items[%d].quantity is %.40s, want a whole number from 1 to %d", i, *item.Quantity, maxQuantity)
	}
	price, err := ParseMoney(item.Price.String())
	if err != nil || price < 0 {
		return validatedItem{}, handler.Permanent(CodeInvalidPrice,
			"order_items[%d].price is %.40s, want an amount from 0 to %s with at most two decimals", i, *item.Price, maxMoney)
	}
	id, ok := parseWhole(item.ProductID.String())
	p, found := productByID(id)
	if !ok || !found {
		return validatedItem{}, handler.Permanent(CodeProductNotFound,
			"order_items[%d].product_id: product %.40s is not in the catalogue", i, *item.ProductID)
	}
	return validatedItem{
		ProductID:      id,
		ProductName:    p.Name,
		Quantity:       quantity,
		UnitPrice:      price,
		LineTotal:      price.Times(quantity),
		AvailableStock: p.Stock,
		Category:       p.Category,
	}, nil
}

// checkValue checks the order's value against the limits. The amount that the
// customer announced may be missing; the order's total is what is charged.
func checkValue(total Money, payment *paymentInfo) error {
	if total > maxOrderTotal {
		return handler.Permanent(CodeOrderTotalTooHigh, "the order's total is %s, at most %s is accepted", total, maxOrderTotal)
	}
	if payment == nil || payment.Amount == nil {
		return nil
	}
	amount, ok := parseRat(payment.Amount.String())
	switch {
	case !ok:
		return handler.Invalid(CodeInvalidContext, "payment_info.amount is %.40s, want a plain decimal number", *payment.Amount)
	case amount.Cmp(maxPaymentAmount.rat()) > 0:
		return handler.Permanent(CodeMaxValueExceeded, "payment_info.amount is %.40s, at most %s is accepted", *payment.Amount, maxPaymentAmount)
	case amount.Cmp(minPaymentAmount.rat()) < 0:
		return handler.Permanent(CodeMinValueNotMet, "payment_info.amount is %.40s, at least %s is needed", *payment.Amount, minPaymentAmount)
	default:
		return nil
	}
}
