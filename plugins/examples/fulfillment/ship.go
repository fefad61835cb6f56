package fulfillment

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

// shipment is the result of ship_order.
type shipment struct {
	ShipmentID        string `json:"shipment_id"`
	TrackingNumber    string `json:"tracking_number"`
	ShippingStatus    string `json:"shipping_status"`
	EstimatedDelivery string `json:"estimated_delivery"` // date
	ShippingCost      Money  `json:"shipping_cost"`
	Carrier           string `json:"carrier"`
	ServiceType       string `json:"service_type"`
	LabelURL          string `json:"label_url"`
	ProcessedAt       string `json:"processed_at"`
}

// rate is what a carrier offers for a shipping method.
type rate struct {
	carrier        string
	service        string
	base           Money
	businessDays   int
	trackingPrefix string
	trackingDigits int
}

func rateFor(method string) rate {
	switch method {
	case "express":
		return rate{"FedEx", "FedEx Express", 15_00, 2, "1Z", 16}
	case "overnight":
		return rate{"FedEx", "FedEx Overnight", 25_00, 1, "1Z", 16}
	default:
		return rate{"UPS", "UPS Ground", 8_99, 5, "UPS", 12}
	}
}

// cost is the base plus 2.50 for each pound beyond the first. A unit weighs
// half a pound, so each unit beyond the second adds 1.25, without any rounding.
func (r rate) cost(units int64) Money {
	const perUnit, included = Money(1_25), 2
	return r.base + perUnit.Times(max(units-included, 0))
}

func (s *service) shipOrder(_ context.Context, step handler.Step) (handler.Result, error) {
	o, err := orderOf(step)
	if err != nil {
		return handler.Result{}, err
	}
	units, err := unitsToShip(step)
	if err != nil {
		return handler.Result{}, err
	}
	switch {
	case o.Shipping == nil:
		return handler.Result{}, handler.Permanent(CodeMissingShippingInfo, "shipping_info is required")
	case o.Shipping.Address == "":
		return handler.Result{}, handler.Permanent(CodeMissingShippingAddress, "shipping_info.address is required")
	}
	id, r, now := s.idsOf(step), rateFor(o.Shipping.Method), s.now().UTC()
	shipmentID := id.dated("SHIP", 8)
	return answer(shipment{
		ShipmentID:        shipmentID,
		TrackingNumber:    r.trackingPrefix + strings.ToUpper(id.hex("tracking", r.trackingDigits)),
		ShippingStatus:    "label_created",
		EstimatedDelivery: afterBusinessDays(now, r.businessDays).Format(time.DateOnly),
		ShippingCost:      r.cost(units),
		Carrier:           r.carrier,
		ServiceType:       r.service,
		LabelURL:          fmt.Sprintf("https://labels.%s.com/%s.pdf", strings.ToLower(r.carrier), shipmentID),
		ProcessedAt:       rfc3339(now),
	}, map[string]any{"operation": "ship_order", "carrier": r.carrier, "units": units})
}

// unitsToShip counts the units that are reserved for an order that is validated
// and paid.
func unitsToShip(step handler.Step) (int64, error) {
	if _, err := resultOf[validation](step, stepValidate, CodeMissingValidation); err != nil {
		return 0, err
	}
	reserved, err := reservationOf(step)
	if err != nil {
		return 0, err
	}
	paid, err := resultOf[paymentResult](step, stepPay, CodeMissingPayment)
	if err != nil {
		return 0, err
	}
	if !paid.PaymentProcessed {
		return 0, handler.Permanent(CodeMissingPayment, "the result of %s says that nothing was paid", stepPay)
	}
	var units int64
	for _, item := range reserved.Details {
		units += item.QuantityReserved
	}
	return units, nil
}

// afterBusinessDays adds n days, not counting Saturdays and Sundays.
func afterBusinessDays(t time.Time, n int) time.Time {
	for n > 0 {
		t = t.AddDate(0, 0, 1)
		if t.Weekday() != time.Saturday && t.Weekday() != time.Sunday {
			n--
		}
	}
	return t
}
