package fulfillment

import (
	"context"
	"fmt"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

const (
	reservationLasts = 15 * time.Minute
	restockAfter     = 60 * time.Second
)

// reserveConfig is the configuration of the step in the template.
type reserveConfig struct {
	// AllowBackorder reserves what is in stock and leaves the rest to a later
	// delivery, instead of waiting for stock.
	AllowBackorder bool `json:"allow_backorder"`
}

// reservation is the result of reserve_inventory.
type reservation struct {
	ReservationID      string         `json:"reservation_id"`
	ItemsReserved      int            `json:"items_reserved"` // lines, not units
	ReservationStatus  string         `json:"reservation_status"`
	TotalReservedValue Money          `json:"total_reserved_value"`
	ExpiresAt          string         `json:"expires_at"`
	ReservedAt         string         `json:"reserved_at"`
	Details            []reservedItem `json:"reservation_details"`
}

type reservedItem struct {
	ProductID           int64  `json:"product_id"`
	ProductName         string `json:"product_name"`
	QuantityRequested   int64  `json:"quantity_requested"`
	QuantityReserved    int64  `json:"quantity_reserved"`
	QuantityBackordered int64  `json:"quantity_backordered,omitempty"`
	UnitPrice           Money  `json:"unit_price"`
	LineTotal           Money  `json:"line_total"`
	StockLocation       string `json:"stock_location"`
	Reference           string `json:"reservation_reference"`
}

func (s *service) reserveInventory(_ context.Context, step handler.Step) (handler.Result, error) {
	var cfg reserveConfig
	if err := step.DecodeConfig(&cfg); err != nil {
		return handler.Result{}, handler.Permanent(CodeInvalidConfig, "step %s: %v", step.Name, err)
	}
	validated, err := resultOf[validation](step, stepValidate, CodeMissingDependencies)
	if err != nil {
		return handler.Result{}, err
	}
	if len(validated.ValidatedItems) == 0 {
		return handler.Result{}, handler.Permanent(CodeNoValidatedItems, "the result of %s has no validated_items", stepValidate)
	}
	id := s.idsOf(step).dated("RES", 8)
	details, err := reserveItems(id, validated.ValidatedItems, cfg.AllowBackorder)
	if err != nil {
		return handler.Result{}, err
	}
	var value Money
	for _, d := range details {
		value += d.LineTotal
	}
	now := s.now()
	return answer(reservation{
		ReservationID:      id,
		ItemsReserved:      len(details),
		ReservationStatus:  "confirmed",
		TotalReservedValue: value,
		ExpiresAt:          rfc3339(now.Add(reservationLasts)),
		ReservedAt:         rfc3339(now),
		Details:            details,
	}, map[string]any{"operation": "reserve_inventory", "reservation_id": id})
}

// reserveItems reserves all lines or none.
func reserveItems(reservationID string, items []validatedItem, allowBackorder bool) ([]reservedItem, error) {
	taken := map[int64]int64{} // units by product: two lines may share one
	details := make([]reservedItem, 0, len(items))
	for _, item := range items {
		p, found := productByID(item.ProductID)
		if !found {
			return nil, handler.Permanent(CodeProductNotInInventory, "product %d is not in the inventory", item.ProductID)
		}
		available := p.Stock - taken[item.ProductID]
		reserved := min(item.Quantity, available)
		if reserved < item.Quantity && !allowBackorder {
			return nil, outOfStock(item, available)
		}
		taken[item.ProductID] += reserved
		details = append(details, reservedItem{
			ProductID:           item.ProductID,
			ProductName:         p.Name,
			QuantityRequested:   item.Quantity,
			QuantityReserved:    reserved,
			QuantityBackordered: item.Quantity - reserved,
			UnitPrice:           item.UnitPrice,
			LineTotal:           item.LineTotal,
			StockLocation:       p.Location,
			Reference:           fmt.Sprintf("%s-%d", reservationID, item.ProductID),
		})
	}
	return details, nil
}

func outOfStock(item validatedItem, available int64) error {
	err := handler.Retryable(restockAfter, CodeInsufficientStock,
		"product %d: %d wanted, %d in stock", item.ProductID, item.Quantity, available)
	err.Context = map[string]any{
		"product_id": item.ProductID, "requested": item.Quantity, "available": available,
	}
	return err
}
