package fulfillment_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/plugins/examples/fulfillment"
	"github.com/tasker-systems/tasker-host/plugins/examples/internal/dagtest"
	"github.com/tasker-systems/tasker-host/sdk/handler"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// friday is when the tests run: ten hours after their task was created.
var friday = time.Date(2026, 1, 2, 13, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func template(t testing.TB) dagtest.Template {
	t.Helper()
	return dagtest.Load(t, "templates/process_order.yaml")
}

func sampleOrder(t testing.TB) string {
	t.Helper()
	sample, err := os.ReadFile("inputs/process_order.json")
	require.NoError(t, err)
	return string(sample)
}

// changed returns the sample order with the value at the path replaced, or
// removed if it is "".
func changed(t testing.TB, value string, path ...any) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(sampleOrder(t))))
	d.UseNumber()
	var root any
	require.NoError(t, d.Decode(&root))
	parent := root
	for _, key := range path[:len(path)-1] {
		parent = child(parent, key)
	}
	switch last := path[len(path)-1].(type) {
	case string:
		object := parent.(map[string]any)
		delete(object, last)
		if value != "" {
			object[last] = json.RawMessage(value)
		}
	case int:
		parent.([]any)[last] = json.RawMessage(value)
	}
	raw, err := json.Marshal(root)
	require.NoError(t, err)
	return string(raw)
}

func child(parent, key any) any {
	if i, ok := key.(int); ok {
		return parent.([]any)[i]
	}
	return parent.(map[string]any)[key.(string)]
}

func TestSampleOrder(t *testing.T) {
	t.Parallel()
	run := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", sampleOrder(t))
	require.NoError(t, run.Err)
	got, err := json.MarshalIndent(map[string]any{"results": run.Results, "metadata": run.Metadata}, "", "  ")
	require.NoError(t, err)
	const golden = "testdata/process_order.golden.json"
	if *update {
		require.NoError(t, os.WriteFile(golden, append(got, '\n'), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got)+"\n")
}

// What the reference documents about the sample order, apart from the golden
// file.
func TestSampleOrderFacts(t *testing.T) {
	t.Parallel()
	run := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", sampleOrder(t))
	require.NoError(t, run.Err)
	for step, facts := range map[string]map[string]string{
		"validate_order":    {"customer_validated": `true`, "customer_id": `12345`, "order_total": `209.97`, "validation_status": `"complete"`},
		"reserve_inventory": {"items_reserved": `2`, "reservation_status": `"confirmed"`, "total_reserved_value": `209.97`},
		"process_payment":   {"payment_processed": `true`, "amount_charged": `209.97`, "payment_method_used": `"credit_card"`, "payment_status": `"completed"`},
		"ship_order":        {"shipping_status": `"label_created"`, "shipping_cost": `16.25`, "carrier": `"FedEx"`, "service_type": `"FedEx Express"`},
	} {
		var result map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(run.Results[step], &result))
		for field, want := range facts {
			require.Equal(t, want, string(result[field]), "%s.%s", step, field)
		}
	}
	require.Contains(t, string(run.Results["process_payment"]), `"gateway_fee":6.09`)
	for step, pattern := range map[string]string{
		"reserve_inventory": `"reservation_id":"RES-1767323045-[0-9a-f]{8}"`,
		"process_payment":   `"payment_id":"PAY-1767323045-[0-9a-f]{12}","transaction_id":"TXN-[0-9a-f]{16}"`,
		"ship_order":        `"shipment_id":"SHIP-1767323045-[0-9a-f]{8}","tracking_number":"1Z[0-9A-F]{16}"`,
	} {
		require.Regexp(t, regexp.MustCompile(pattern), string(run.Results[step]))
	}
}

// A second attempt, later, must reserve, charge and ship under the same
// identifiers; a run that an operator asked for must not.
func TestIdentifiersFollowTheIdempotencyKey(t *testing.T) {
	t.Parallel()
	first := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", sampleOrder(t))
	require.NoError(t, first.Err)
	ids := regexp.MustCompile(`(RES|PAY|TXN|SHIP)-[0-9a-f-]+|(1Z|UPS)[0-9A-F]+`)
	for _, step := range template(t).Steps[1:] {
		attempt := handler.Step{
			TaskUUID: dagtest.TaskUUID, Name: step.Name, Attempt: 2,
			IdempotencyKey: dagtest.TaskUUID + "/" + step.Name,
			Context:        json.RawMessage(sampleOrder(t)), Dependencies: first.Results,
		}
		h := fulfillment.Handlers(at(friday.Add(time.Hour)))[step.Handler]
		again, err := h.Handle(t.Context(), attempt)
		require.NoError(t, err)
		want := ids.FindAllString(string(first.Results[step.Name]), -1)
		require.NotEmpty(t, want)
		require.Equal(t, want, ids.FindAllString(string(again.Value), -1), step.Name)

		attempt.IdempotencyKey += "/anew"
		anew, err := h.Handle(t.Context(), attempt)
		require.NoError(t, err)
		require.NotEqual(t, want, ids.FindAllString(string(anew.Value), -1), step.Name)
	}
}

func TestTaskUUIDWithoutTimeDatesIdentifiersByTheClock(t *testing.T) {
	t.Parallel()
	for _, task := range []string{"", "0198b5a4-6c1e-4f0a-9d5b-3e7f21c08a64"} {
		result, err := fulfillment.Handlers(at(friday))[fulfillment.ReserveInventory].Handle(t.Context(), handler.Step{
			TaskUUID: task,
			Dependencies: map[string]json.RawMessage{
				"validate_order": json.RawMessage(`{"validated_items":[{"product_id":101,"quantity":1}]}`),
			},
		})
		require.NoError(t, err)
		require.Contains(t, string(result.Value), fmt.Sprintf(`"RES-%d-`, friday.Unix()))
	}
}

func TestShippingMethods(t *testing.T) {
	t.Parallel()
	thursday := friday.AddDate(0, 0, -1)
	saturday := friday.AddDate(0, 0, 1)
	tests := []struct {
		method, cost, service, tracking, label string
		from                                   time.Time
		delivery                               string
	}{
		{`"express"`, "16.25", "FedEx Express", `^1Z[0-9A-F]{16}$`, `https://labels.fedex.com/SHIP-`, thursday, "2026-01-05"},
		{`"express"`, "16.25", "FedEx Express", `^1Z[0-9A-F]{16}$`, `https://labels.fedex.com/SHIP-`, friday, "2026-01-06"},
		{`"overnight"`, "26.25", "FedEx Overnight", `^1Z[0-9A-F]{16}$`, `https://labels.fedex.com/SHIP-`, thursday, "2026-01-02"},
		{`"overnight"`, "26.25", "FedEx Overnight", `^1Z[0-9A-F]{16}$`, `https://labels.fedex.com/SHIP-`, saturday, "2026-01-05"},
		{`"standard"`, "10.24", "UPS Ground", `^UPS[0-9A-F]{12}$`, `https://labels.ups.com/SHIP-`, friday, "2026-01-09"},
		{`"pigeon"`, "10.24", "UPS Ground", `^UPS[0-9A-F]{12}$`, `https://labels.ups.com/SHIP-`, friday, "2026-01-09"},
		{``, "10.24", "UPS Ground", `^UPS[0-9A-F]{12}$`, `https://labels.ups.com/SHIP-`, friday, "2026-01-09"},
	}
	for _, tt := range tests {
		t.Run(tt.method+tt.delivery, func(t *testing.T) {
			t.Parallel()
			order := changed(t, tt.method, "shipping_info", "method")
			run := template(t).Execute(t, fulfillment.Handlers(at(tt.from)), "", order)
			require.NoError(t, run.Err)
			var got struct {
				ShippingCost      json.Number `json:"shipping_cost"`
				ServiceType       string      `json:"service_type"`
				TrackingNumber    string      `json:"tracking_number"`
				LabelURL          string      `json:"label_url"`
				EstimatedDelivery string      `json:"estimated_delivery"`
			}
			require.NoError(t, json.Unmarshal(run.Results["ship_order"], &got))
			require.Equal(t, []string{tt.cost, tt.service, tt.delivery},
				[]string{got.ShippingCost.String(), got.ServiceType, got.EstimatedDelivery})
			require.Regexp(t, tt.tracking, got.TrackingNumber)
			require.Contains(t, got.LabelURL, tt.label)
		})
	}
}

// One pound is included: one unit and two cost only the base price.
func TestShippingCostByWeight(t *testing.T) {
	t.Parallel()
	for quantity, want := range map[string]string{"1": "15.00", "2": "15.00", "3": "16.25", "100": "137.50"} {
		items := fmt.Sprintf(`[{"product_id":101,"quantity":%s,"price":1}]`, quantity)
		run := template(t).Execute(t, fulfillment.Handlers(at(friday)), "", changed(t, items, "order_items"))
		require.NoError(t, run.Err)
		require.Contains(t, string(run.Results["ship_order"]), `"shipping_cost":`+want+`,`)
	}
}

// Whatever the order, its amounts add up to the last cent, in every step.
func TestAmountsNeverDrift(t *testing.T) {
	t.Parallel()
	tmpl := template(t)
	rapid.Check(t, func(rt *rapid.T) {
		var items []map[string]any
		want := new(big.Rat)
		for i := range rapid.IntRange(1, 10).Draw(rt, "lines") {
			cents := rapid.Int64Range(0, 99_999).Draw(rt, "cents")
			quantity := rapid.Int64Range(1, 5).Draw(rt, "quantity")
			price := big.NewRat(cents, 100)
			items = append(items, map[string]any{
				"product_id": 101 + i%3, "quantity": quantity, "price": json.Number(price.FloatString(2)),
			})
			want.Add(want, new(big.Rat).Mul(price, big.NewRat(quantity, 1)))
		}
		raw, err := json.Marshal(items)
		require.NoError(rt, err)
		run := tmpl.Execute(t, fulfillment.Handlers(at(friday)), "", changed(t, string(raw), "order_items"))
		require.NoError(rt, run.Err)

		total := want.FloatString(2)
		require.Equal(rt, total, sumOfLines(rt, run.Results["validate_order"]))
		require.Contains(rt, string(run.Results["validate_order"]), `"order_total":`+total+`,`)
		require.Equal(rt, total, sumOfLines(rt, run.Results["reserve_inventory"]))
		require.Contains(rt, string(run.Results["reserve_inventory"]), `"total_reserved_value":`+total+`,`)
		require.Contains(rt, string(run.Results["process_payment"]), `"amount_charged":`+total+`,`)
	})
}

func sumOfLines(t require.TestingT, result json.RawMessage) string {
	sum := new(big.Rat)
	for _, line := range regexp.MustCompile(`"line_total":(-?[0-9.]+)`).FindAllSubmatch(result, -1) {
		amount, ok := new(big.Rat).SetString(string(line[1]))
		require.True(t, ok)
		sum.Add(sum, amount)
	}
	return sum.FloatString(2)
}

func TestBackorderInProduction(t *testing.T) {
	t.Parallel()
	order := changed(t, `[{"product_id":102,"quantity":40,"price":1},{"product_id":102,"quantity":30,"price":1}]`, "order_items")
	run := template(t).Execute(t, fulfillment.Handlers(at(friday)), "production", order)
	require.NoError(t, run.Err)
	reserved := string(run.Results["reserve_inventory"])
	require.Contains(t, reserved, `"quantity_requested":40,"quantity_reserved":40,"unit_price"`)
	require.Contains(t, reserved, `"quantity_requested":30,"quantity_reserved":10,"quantity_backordered":20,"unit_price"`)
	require.Contains(t, string(run.Metadata["ship_order"]), `"units":50`)
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	tmpl := template(t)
	require.Equal(t, []string{"fulfillment", "process_order", "1.0.0"}, []string{tmpl.Namespace, tmpl.Name, tmpl.Version})
	type policy struct {
		attempts int
		timeout  string
	}
	policies := func(environment string) map[string]policy {
		all := map[string]policy{}
		for _, step := range tmpl.Steps {
			p := policy{step.Retry.MaxAttempts, step.Timeout}
			o := tmpl.Environments[environment].Steps[step.Name]
			if o.Retry.MaxAttempts != 0 {
				p.attempts = o.Retry.MaxAttempts
			}
			if o.Timeout != "" {
				p.timeout = o.Timeout
			}
			all[step.Name] = p
		}
		return all
	}
	require.Equal(t, map[string]policy{
		"validate_order": {1, ""}, "reserve_inventory": {3, ""}, "process_payment": {2, ""}, "ship_order": {5, ""},
	}, policies(""))
	require.Equal(t, map[string]policy{
		"validate_order": {1, "5s"}, "reserve_inventory": {1, "10s"}, "process_payment": {1, "15s"}, "ship_order": {2, "20s"},
	}, policies("test"))
	require.Equal(t, map[string]policy{
		"validate_order": {1, ""}, "reserve_inventory": {5, ""}, "process_payment": {3, "60s"}, "ship_order": {10, "120s"},
	}, policies("production"))
	require.Equal(t, []string{"validate_order", "reserve_inventory"}, tmpl.Step(t, "process_payment").DependsOn)
	require.Equal(t, []string{"process_payment"}, tmpl.Step(t, "ship_order").DependsOn)
}
