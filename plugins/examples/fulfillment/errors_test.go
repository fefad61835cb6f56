package fulfillment_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/plugins/examples/fulfillment"
	"github.com/tasker-systems/tasker-host/plugins/examples/internal/dagtest"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

type path = []any

// failingOrder is a change to the sample order, and how it makes the task fail.
type failingOrder struct {
	step, code string
	at         path
	value      string // "" removes
}

func failingOrders() []failingOrder {
	manyItems := "[" + strings.Repeat(`{"product_id":101,"quantity":1,"price":1},`, 50) + `{"product_id":101,"quantity":1,"price":1}]`
	return []failingOrder{
		{"validate_order", fulfillment.CodeMissingCustomerID, path{"customer_info"}, ``},
		{"validate_order", fulfillment.CodeMissingCustomerID, path{"customer_info"}, `null`},
		{"validate_order", fulfillment.CodeMissingCustomerID, path{"customer_info", "id"}, ``},
		{"validate_order", fulfillment.CodeMissingCustomerID, path{"customer_info", "id"}, `null`},
		{"validate_order", fulfillment.CodeMissingCustomerID, path{"customer_info", "id"}, `""`},
		{"validate_order", fulfillment.CodeMissingCustomerEmail, path{"customer_info", "email"}, ``},
		{"validate_order", fulfillment.CodeMissingCustomerEmail, path{"customer_info", "email"}, `""`},
		{"validate_order", fulfillment.CodeMissingOrderItems, path{"order_items"}, ``},
		{"validate_order", fulfillment.CodeMissingOrderItems, path{"order_items"}, `[]`},
		{"validate_order", fulfillment.CodeMaxItemsExceeded, path{"order_items"}, manyItems},
		{"validate_order", fulfillment.CodeInvalidOrderItem, path{"order_items", 0}, `null`},
		{"validate_order", fulfillment.CodeInvalidOrderItem, path{"order_items", 0}, `{}`},
		{"validate_order", fulfillment.CodeInvalidOrderItem, path{"order_items", 1, "product_id"}, ``},
		{"validate_order", fulfillment.CodeInvalidOrderItem, path{"order_items", 1, "quantity"}, ``},
		{"validate_order", fulfillment.CodeInvalidOrderItem, path{"order_items", 1, "price"}, ``},
		{"validate_order", fulfillment.CodeInvalidQuantity, path{"order_items", 1, "quantity"}, `0`},
		{"validate_order", fulfillment.CodeInvalidQuantity, path{"order_items", 1, "quantity"}, `-1`},
		{"validate_order", fulfillment.CodeInvalidQuantity, path{"order_items", 1, "quantity"}, `1.5`},
		{"validate_order", fulfillment.CodeInvalidQuantity, path{"order_items", 1, "quantity"}, `1000001`},
		{"validate_order", fulfillment.CodeInvalidQuantity, path{"order_items", 1, "quantity"}, `99999999999999999999999999`},
		{"validate_order", fulfillment.CodeInvalidPrice, path{"order_items", 1, "price"}, `-0.01`},
		{"validate_order", fulfillment.CodeInvalidPrice, path{"order_items", 1, "price"}, `0.001`},
		{"validate_order", fulfillment.CodeInvalidPrice, path{"order_items", 1, "price"}, `1e99999999`},
		{"validate_order", fulfillment.CodeProductNotFound, path{"order_items", 1, "product_id"}, `999`},
		{"validate_order", fulfillment.CodeProductNotFound, path{"order_items", 1, "product_id"}, `10.5`},
		{"validate_order", fulfillment.CodeOrderTotalTooHigh, path{"order_items", 1, "price"}, `49940.03`},
		{"validate_order", fulfillment.CodeOrderTotalTooHigh, path{"order_items", 1, "quantity"}, `1000000`},
		{"validate_order", fulfillment.CodeMaxValueExceeded, path{"payment_info", "amount"}, `10000.01`},
		{"validate_order", fulfillment.CodeMaxValueExceeded, path{"payment_info", "amount"}, `10000.000001`},
		{"validate_order", fulfillment.CodeMinValueNotMet, path{"payment_info", "amount"}, `0`},
		{"validate_order", fulfillment.CodeMinValueNotMet, path{"payment_info", "amount"}, `0.009`},
		{"validate_order", fulfillment.CodeInvalidContext, path{"payment_info", "amount"}, `1e99999999`},
		{"validate_order", fulfillment.CodeInvalidContext, path{"order_items"}, `"two"`},
		{"validate_order", fulfillment.CodeInvalidContext, path{"shipping_info"}, `7`},
		{"process_payment", fulfillment.CodeMissingPaymentInfo, path{"payment_info"}, ``},
		{"process_payment", fulfillment.CodeMissingPaymentMethod, path{"payment_info", "method"}, ``},
		{"process_payment", fulfillment.CodeMissingPaymentMethod, path{"payment_info", "method"}, `""`},
		{"process_payment", fulfillment.CodeMissingPaymentToken, path{"payment_info", "token"}, ``},
		{"process_payment", fulfillment.CodePaymentDeclined, path{"payment_info", "token"}, `"tok_card_declined"`},
		{"process_payment", fulfillment.CodePaymentDeclined, path{"payment_info", "token"}, `"tok_insufficient_funds"`},
		{"process_payment", fulfillment.CodePaymentDeclined, path{"payment_info", "token"}, `"tok_invalid_card"`},
		{"process_payment", fulfillment.CodePaymentAuthFailed, path{"payment_info", "token"}, `"tok_authentication_failed"`},
		{"process_payment", fulfillment.CodePaymentAuthFailed, path{"payment_info", "token"}, `"tok_invalid_token"`},
		{"ship_order", fulfillment.CodeMissingShippingInfo, path{"shipping_info"}, ``},
		{"ship_order", fulfillment.CodeMissingShippingAddress, path{"shipping_info", "address"}, ``},
		{"ship_order", fulfillment.CodeMissingShippingAddress, path{"shipping_info", "address"}, `""`},
	}
}

func TestOrdersThatFail(t *testing.T) {
	t.Parallel()
	for _, tt := range failingOrders() {
		t.Run(tt.code, func(t *testing.T) {
			t.Parallel()
			run := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", changed(t, tt.value, tt.at...))
			err := dagtest.RequireError(t, run.Err, tt.code)
			require.Equal(t, tt.step, run.Failed)
			want := vocab.PermanentError
			if tt.code == fulfillment.CodeInvalidContext {
				want = vocab.ValidationError
			}
			require.Equal(t, want, err.Type)
		})
	}
}

// A caller can see every code: for each there is an order that the input schema
// accepts and that fails with it.
func TestSchemaHidesNoErrorCode(t *testing.T) {
	t.Parallel()
	tmpl := template(t)
	require.NoError(t, tmpl.Accepts(t, sampleOrder(t)))
	reachable := map[string]bool{}
	for _, o := range failingOrders() {
		reachable[o.code] = reachable[o.code] || tmpl.Accepts(t, changed(t, o.value, o.at...)) == nil
	}
	delete(reachable, fulfillment.CodeInvalidContext) // the schema exists to refuse these
	for code, ok := range reachable {
		require.True(t, ok, code)
	}
	require.Error(t, tmpl.Accepts(t, changed(t, `"two"`, "order_items")))
	require.Error(t, tmpl.Accepts(t, changed(t, `"cash"`, "payment_info", "method")))
	require.Error(t, tmpl.Accepts(t, changed(t, `"pigeon"`, "shipping_info", "method")))
}

// Values at the limits are allowed.
func TestOrdersAtTheLimits(t *testing.T) {
	t.Parallel()
	fiftyItems := "[" + strings.Repeat(`{"product_id":103,"quantity":1,"price":1},`, 49) + `{"product_id":103,"quantity":1.0,"price":0}]`
	for _, order := range []string{
		changed(t, `49940.02`, "order_items", 1, "price"), // a total of 50000.00
		changed(t, `10000`, "payment_info", "amount"),
		changed(t, `0.01`, "payment_info", "amount"),
		changed(t, ``, "payment_info", "amount"),
		changed(t, `100`, "order_items", 0, "quantity"), // all of the stock
		changed(t, fiftyItems, "order_items"),
	} {
		run := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", order)
		require.NoError(t, run.Err, order)
	}
}

func TestFailuresThatMayPass(t *testing.T) {
	t.Parallel()
	tests := []struct {
		step, code string
		after      time.Duration
		at         path
		value      string
	}{
		{"reserve_inventory", fulfillment.CodeInsufficientStock, 60 * time.Second, path{"order_items", 0, "quantity"}, `101`},
		{
			"reserve_inventory", fulfillment.CodeInsufficientStock, 60 * time.Second,
			path{"order_items"},
			`[{"product_id":102,"quantity":30,"price":1},{"product_id":102,"quantity":30,"price":1}]`,
		},
		{"process_payment", fulfillment.CodePaymentRateLimited, 60 * time.Second, path{"payment_info", "token"}, `"tok_rate_limited"`},
		{"process_payment", fulfillment.CodePaymentRateLimited, 60 * time.Second, path{"payment_info", "token"}, `"tok_rate_limited_once"`},
		{"process_payment", fulfillment.CodePaymentGateway, 30 * time.Second, path{"payment_info", "token"}, `"tok_gateway_error"`},
		{"process_payment", fulfillment.CodePaymentGateway, 30 * time.Second, path{"payment_info", "token"}, `"tok_network_timeout"`},
	}
	for _, tt := range tests {
		t.Run(tt.code+tt.value, func(t *testing.T) {
			t.Parallel()
			run := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", changed(t, tt.value, tt.at...))
			err := dagtest.RequireError(t, run.Err, tt.code)
			require.Equal(t, tt.step, run.Failed)
			require.Equal(t, vocab.RetryableError, err.Type)
			require.Equal(t, tt.after, err.RetryAfter)
		})
	}
}

func TestGatewayRecovers(t *testing.T) {
	t.Parallel()
	before := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", sampleOrder(t))
	require.NoError(t, before.Err)
	for token, succeeds := range map[string]bool{
		"tok_rate_limited_once": true, "tok_gateway_error_once": true, "tok_network_timeout_once": true,
		"tok_rate_limited": false, "tok_card_declined": false, "tok_card_declined_once": true, // not a token of the gateway's
	} {
		_, err := fulfillment.Handlers(at(friday))[fulfillment.ProcessPayment].Handle(t.Context(), handler.Step{
			Name: "process_payment", Attempt: 2, Dependencies: before.Results,
			Context: json.RawMessage(changed(t, `"`+token+`"`, "payment_info", "token")),
		})
		require.Equal(t, succeeds, err == nil, token)
	}
}

// Missing or useless results: a step that an operator resolved by hand has
// none, and another worker may have written anything.
func TestParentsWithoutUsefulResults(t *testing.T) {
	t.Parallel()
	tests := []struct{ handler, parent, result, code string }{
		{fulfillment.ReserveInventory, "validate_order", ``, fulfillment.CodeMissingDependencies},
		{fulfillment.ReserveInventory, "validate_order", `null`, fulfillment.CodeMissingDependencies},
		{fulfillment.ReserveInventory, "validate_order", `"fine"`, fulfillment.CodeMissingDependencies},
		{fulfillment.ReserveInventory, "validate_order", `{}`, fulfillment.CodeNoValidatedItems},
		{fulfillment.ReserveInventory, "validate_order", `{"validated_items":[]}`, fulfillment.CodeNoValidatedItems},
		{fulfillment.ReserveInventory, "validate_order", `{"validated_items":[{"product_id":104,"quantity":1}]}`, fulfillment.CodeProductNotInInventory},
		{fulfillment.ProcessPayment, "validate_order", `null`, fulfillment.CodeMissingValidation},
		{fulfillment.ProcessPayment, "validate_order", `{}`, fulfillment.CodeMissingValidation},
		{fulfillment.ProcessPayment, "validate_order", `{"order_total":"much"}`, fulfillment.CodeMissingValidation},
		{fulfillment.ProcessPayment, "reserve_inventory", ``, fulfillment.CodeMissingReservation},
		{fulfillment.ProcessPayment, "reserve_inventory", `null`, fulfillment.CodeMissingReservation},
		{fulfillment.ProcessPayment, "reserve_inventory", `{}`, fulfillment.CodeMissingReservation},
		{fulfillment.ShipOrder, "validate_order", `null`, fulfillment.CodeMissingValidation},
		{fulfillment.ShipOrder, "reserve_inventory", `null`, fulfillment.CodeMissingReservation},
		{fulfillment.ShipOrder, "process_payment", ``, fulfillment.CodeMissingPayment},
		{fulfillment.ShipOrder, "process_payment", `null`, fulfillment.CodeMissingPayment},
		{fulfillment.ShipOrder, "process_payment", `{"payment_processed":false}`, fulfillment.CodeMissingPayment},
	}
	before := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", sampleOrder(t))
	require.NoError(t, before.Err)
	for _, tt := range tests {
		t.Run(tt.handler+tt.result, func(t *testing.T) {
			t.Parallel()
			dependencies := maps.Clone(before.Results)
			delete(dependencies, tt.parent)
			if tt.result != "" {
				dependencies[tt.parent] = json.RawMessage(tt.result)
			}
			_, err := fulfillment.Handlers(at(friday))[tt.handler].Handle(t.Context(), handler.Step{
				Name: "s", Context: json.RawMessage(sampleOrder(t)), Dependencies: dependencies,
			})
			require.Equal(t, vocab.PermanentError, dagtest.RequireError(t, err, tt.code).Type)
		})
	}
}

func TestContextAndConfigOfTheWrongShape(t *testing.T) {
	t.Parallel()
	for _, name := range []string{fulfillment.ValidateOrder, fulfillment.ProcessPayment, fulfillment.ShipOrder} {
		_, err := fulfillment.Handlers(at(friday))[name].Handle(t.Context(), handler.Step{Context: json.RawMessage(`[]`)})
		require.Equal(t, vocab.ValidationError, dagtest.RequireError(t, err, fulfillment.CodeInvalidContext).Type)
	}
	_, err := fulfillment.Handlers(at(friday))[fulfillment.ReserveInventory].Handle(t.Context(), handler.Step{
		Name: "s", Config: json.RawMessage(`{"allow_backorder":"yes"}`),
	})
	dagtest.RequireError(t, err, fulfillment.CodeInvalidConfig)
}
