package main

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/plugins/examples/fulfillment"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

func TestMain(m *testing.M) { leaks.Main(m) }

// dependencies returns the results of earlier steps, as far as others read
// them.
func dependencies() map[string]any {
	return map[string]any{
		"validate_order": json.RawMessage(
			`{"order_total":209.97,"validated_items":[{"product_id":101,"quantity":7,"unit_price":29.99,"line_total":209.97}]}`),
		"reserve_inventory": json.RawMessage(
			`{"reservation_id":"RES-1-0","reservation_details":[{"product_id":101,"quantity_reserved":7}]}`),
		"process_payment": json.RawMessage(`{"payment_processed":true}`),
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	sample, err := os.ReadFile("../../examples/fulfillment/inputs/process_order.json")
	require.NoError(t, err)
	step := plugintest.Step{Context: json.RawMessage(sample), Dependencies: dependencies()}
	plugintest.Conformance(t, plugin(),
		plugintest.Example(fulfillment.ValidateOrder, step),
		plugintest.Example(fulfillment.ReserveInventory, step),
		plugintest.Example(fulfillment.ProcessPayment, step),
		plugintest.Example(fulfillment.ShipOrder, step),
	)
}

func TestClassifiedFailuresOnTheWire(t *testing.T) {
	t.Parallel()
	for token, want := range map[string]plugintest.Failure{
		"tok_card_declined": {
			Type: vocab.PermanentError, Code: fulfillment.CodePaymentDeclined, Message: "payment declined: card_declined",
		},
		"tok_rate_limited": {
			Type: vocab.RetryableError, Code: fulfillment.CodePaymentRateLimited, Message: "payment gateway: rate limited",
			Retryable: true, RetryAfter: time.Minute,
		},
	} {
		got := plugintest.Run(t, fulfillment.Handlers(time.Now)[fulfillment.ProcessPayment], plugintest.Step{
			Context:      json.RawMessage(`{"payment_info":{"method":"credit_card","token":"` + token + `"}}`),
			Dependencies: dependencies(),
		})
		require.NotNil(t, got.Failure)
		require.Contains(t, string(got.Failure.Context), `"amount":209.97`)
		got.Failure.Context = nil
		require.Equal(t, want, *got.Failure)
	}
}
