package e2e_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// results runs a task and returns the results of its steps as the API sends
// them, digit by digit.
func results(t *testing.T, h *host, namespace, name, input string) map[string]string {
	t.Helper()
	task := runTask(t, h, namespace, name, input)
	require.Equal(t, vocab.TaskComplete, task.State, "%+v", task.Error)
	steps, err := h.Steps(t.Context(), task.UUID)
	require.NoError(t, err)
	found := map[string]string{}
	for _, s := range steps {
		found[s.Name] = string(s.Result)
	}
	return found
}

// TestNumbersOfTheExamples: every number of the reference's tables, through
// database, plugin and API.
func TestNumbersOfTheExamples(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	const (
		linear  = "linear_workflow/mathematical_sequence"
		diamond = "diamond_workflow/parallel_computation"
		tree    = "tree_workflow/hierarchical_computation"
		mixed   = "mixed_dag_workflow/complex_dag_computation"
	)
	for _, x := range []struct {
		template string
		n        int
		want     string // step=result, …
	}{
		{linear, 2, "linear_step_1=4 linear_step_2=16 linear_step_3=256 linear_step_4=65536"},
		{linear, 6, "linear_step_1=36 linear_step_2=1296 linear_step_3=1679616 linear_step_4=2821109907456"},
		{linear, 8, "linear_step_1=64 linear_step_2=4096 linear_step_3=16777216 linear_step_4=281474976710656"},
		{linear, 10, "linear_step_1=100 linear_step_2=10000 linear_step_3=100000000 linear_step_4=10000000000000000"},
		{diamond, 4, "diamond_start=16 diamond_branch_b=256 diamond_branch_c=256 diamond_end=4294967296"},
		{diamond, 8, "diamond_start=64 diamond_branch_b=4096 diamond_branch_c=4096 diamond_end=281474976710656"},
		{diamond, 10, "diamond_start=100 diamond_branch_b=10000 diamond_branch_c=10000 diamond_end=10000000000000000"},
		{tree, 2, "tree_root=4 tree_branch_left=16 tree_branch_right=16 tree_leaf_d=256 tree_leaf_e=256 tree_leaf_f=256 tree_leaf_g=256 tree_final_convergence=18446744073709551616"},
		{mixed, 2, "dag_init=4 dag_process_left=16 dag_process_right=16 dag_validate=65536 dag_transform=256 dag_analyze=256 dag_finalize=18446744073709551616"},
		{mixed, 4, "dag_init=16 dag_process_left=256 dag_process_right=256 dag_validate=4294967296 dag_transform=65536 dag_analyze=65536 dag_finalize=340282366920938463463374607431768211456"},
	} {
		t.Run(fmt.Sprintf("%s %d", x.template, x.n), func(t *testing.T) {
			t.Parallel()
			namespace, name, _ := strings.Cut(x.template, "/")
			found := results(t, h, namespace, name, fmt.Sprintf(`{"even_number": %d}`, x.n))
			want := map[string]string{}
			for pair := range strings.SplitSeq(x.want, " ") {
				step, result, _ := strings.Cut(pair, "=")
				want[step] = result
			}
			require.Equal(t, want, found)
		})
	}
	t.Run("odd", func(t *testing.T) {
		t.Parallel()
		task := runTask(t, h, "linear_workflow", "mathematical_sequence", `{"even_number": 7}`)
		require.Equal(t, vocab.TaskError, task.State)
		require.Equal(t, "linear_step_1", task.Error.Step)
	})
}

// order returns the sample order with values put at paths such as
// payment_info.token; null removes.
func order(t *testing.T, changes ...string) string {
	t.Helper()
	var whole map[string]any
	d := json.NewDecoder(strings.NewReader(string(example(t, "fulfillment/inputs/process_order.json"))))
	d.UseNumber()
	require.NoError(t, d.Decode(&whole))
	for _, c := range changes {
		path, value, _ := strings.Cut(c, "=")
		keys := strings.Split(path, ".")
		at := whole
		for _, key := range keys[:len(keys)-1] {
			if list, ok := at[key].([]any); ok {
				at = list[1].(map[string]any) // the second item
			} else {
				at = at[key].(map[string]any)
			}
		}
		if value == "null" {
			delete(at, keys[len(keys)-1])
			continue
		}
		at[keys[len(keys)-1]] = json.RawMessage(value)
	}
	src, err := json.Marshal(whole)
	require.NoError(t, err)
	return string(src)
}

// TestSampleOrder: the figures of the reference.
func TestSampleOrder(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	for method, want := range map[string][3]string{
		"express": {"16.25", "FedEx Express", "1Z"}, "overnight": {"26.25", "FedEx Overnight", "1Z"}, "standard": {"10.24", "UPS Ground", "UPS"},
	} {
		found := results(t, h, "fulfillment", "process_order", order(t, fmt.Sprintf("shipping_info.method=%q", method)))
		for step, words := range map[string][]string{
			"validate_order":    {`"customer_validated":true`, `"order_total":209.97`, `"line_total":59.98`, `"line_total":149.99`, `"validation_status":"complete"`},
			"reserve_inventory": {`"items_reserved":2`, `"total_reserved_value":209.97`, `"reservation_status":"confirmed"`, "WH-EAST-A1", "WH-WEST-B2"},
			"process_payment":   {`"payment_processed":true`, `"amount_charged":209.97`, `"gateway_fee":6.09`, `"payment_status":"completed"`},
			"ship_order":        {`"shipping_status":"label_created"`, `"shipping_cost":` + want[0], want[1], `"tracking_number":"` + want[2]},
		} {
			compact := strings.ReplaceAll(strings.ReplaceAll(found[step], `": `, `":`), `, "`, `,"`)
			for _, word := range words {
				require.Contains(t, compact, word, "%s of %s", step, method)
			}
		}
	}
}

// TestErrorCodesOfOrders: every code of the workflow is what a user is told.
func TestErrorCodesOfOrders(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	for _, x := range ordersThatFail() {
		t.Run(x.code, func(t *testing.T) {
			t.Parallel()
			requireFails(t, h, "fulfillment", "process_order", order(t, x.change), x.step, x.code)
		})
	}
}

// ordersThatFail are changes of the sample order, one for each code that an
// order alone can bring about.
func ordersThatFail() []struct{ code, step, change string } {
	items := "[" + strings.TrimSuffix(strings.Repeat(`{"product_id":101,"quantity":1,"price":1},`, 51), ",") + "]"
	return []struct{ code, step, change string }{
		{"MISSING_CUSTOMER_ID", "validate_order", "customer_info.id=null"},
		{"MISSING_CUSTOMER_EMAIL", "validate_order", "customer_info.email=null"},
		{"MISSING_ORDER_ITEMS", "validate_order", "order_items=[]"},
		{"MAX_ITEMS_EXCEEDED", "validate_order", "order_items=" + items},
		{"INVALID_ORDER_ITEM", "validate_order", "order_items.price=null"},
		{"INVALID_QUANTITY", "validate_order", "order_items.quantity=0"},
		{"INVALID_PRICE", "validate_order", "order_items.price=-0.01"},
		{"PRODUCT_NOT_FOUND", "validate_order", "order_items.product_id=999"},
		{"ORDER_TOTAL_TOO_HIGH", "validate_order", "order_items.price=49940.03"},
		{"MAX_VALUE_EXCEEDED", "validate_order", "payment_info.amount=10000.01"},
		{"MIN_VALUE_NOT_MET", "validate_order", "payment_info.amount=0.009"},
		{"INSUFFICIENT_STOCK", "reserve_inventory", "order_items.quantity=51"},
		{"MISSING_PAYMENT_INFO", "process_payment", "payment_info=null"},
		{"MISSING_PAYMENT_METHOD", "process_payment", "payment_info.method=null"},
		{"MISSING_PAYMENT_TOKEN", "process_payment", "payment_info.token=null"},
		{"PAYMENT_DECLINED", "process_payment", `payment_info.token="tok_card_declined"`},
		{"PAYMENT_AUTH_FAILED", "process_payment", `payment_info.token="tok_authentication_failed"`},
		{"PAYMENT_RATE_LIMITED", "process_payment", `payment_info.token="tok_rate_limited"`},
		{"PAYMENT_GATEWAY_ERROR", "process_payment", `payment_info.token="tok_gateway_error"`},
		{"MISSING_SHIPPING_INFO", "ship_order", "shipping_info=null"},
		{"MISSING_SHIPPING_ADDRESS", "ship_order", "shipping_info.address=null"},
	}
}

// stepsThatMiss are steps of a template of the user's own that miss what they
// need, one for each code that comes from that.
func stepsThatMiss() []struct{ code, handler, parents, config, input string } {
	return []struct{ code, handler, parents, config, input string }{
		{"MISSING_DEPENDENCY_RESULTS", "reserve_inventory", "", "{}", `{}`},
		{"NO_VALIDATED_ITEMS", "reserve_inventory", "validate_order", "{}", `{"validated_items": []}`},
		{"PRODUCT_NOT_IN_INVENTORY", "reserve_inventory", "validate_order", "{}", `{"validated_items": [{"product_id": 104, "quantity": 1}]}`},
		{"INVALID_STEP_CONFIG", "reserve_inventory", "validate_order", "{allow_backorder: perhaps}", `{}`},
		{"MISSING_VALIDATION_RESULTS", "process_payment", "reserve_inventory", "{}", `{"payment_info": {"method": "paypal", "token": "tok"}}`},
		{"MISSING_RESERVATION_RESULTS", "process_payment", "validate_order", "{}", `{"order_total": 1, "payment_info": {"method": "paypal", "token": "tok"}}`},
		{"MISSING_PAYMENT_RESULTS", "ship_order", "validate_order, reserve_inventory", "{}", `{"order_total": 1, "validated_items": [{"product_id": 101, "quantity": 1, "unit_price": 1, "line_total": 1}], "reservation_id": "RES-1", "shipping_info": {"address": "here"}}`},
		{"INVALID_CONTEXT", "validate_order", "", "{}", `{"order_items": "two"}`},
	}
}

// TestNoCodeIsForgotten: the two lists hold every code that the workflow has.
func TestNoCodeIsForgotten(t *testing.T) {
	t.Parallel()
	var all, tested []string
	for _, found := range regexp.MustCompile(`= "([A-Z_]+)"`).FindAllStringSubmatch(string(example(t, "fulfillment/codes.go")), -1) {
		all = append(all, found[1])
	}
	for _, x := range ordersThatFail() {
		tested = append(tested, x.code)
	}
	for _, x := range stepsThatMiss() {
		tested = append(tested, x.code)
	}
	require.ElementsMatch(t, all, tested)
}

// TestErrorCodesOfOtherTemplates: the codes that only a template of the user's
// own brings about, in which a step misses what it needs.
func TestErrorCodesOfOtherTemplates(t *testing.T) {
	t.Parallel()
	h := exampleHost(t)
	const echo = "  - {name: validate_order, handler: chaos.echo}\n  - {name: reserve_inventory, handler: chaos.echo}\n"
	for i, x := range stepsThatMiss() {
		t.Run(x.code, func(t *testing.T) {
			t.Parallel()
			name := fmt.Sprintf("own_%d", i)
			applyTemplate(t, h, fmt.Sprintf("namespace: e2e\nname: %s\nversion: 1.0.0\nsteps:\n%s  - {name: last, handler: fulfillment.%s, depends_on: [%s], config: %s}\n",
				name, echo, x.handler, x.parents, x.config))
			requireFails(t, h, "e2e", name, x.input, "last", x.code)
		})
	}
}

// requireFails runs a task that fails, and requires that the API and the command
// line say which step it was and why.
func requireFails(t *testing.T, h *host, namespace, name, input, step, code string) {
	t.Helper()
	task := runTask(t, h, namespace, name, input)
	require.Equal(t, vocab.TaskError, task.State)
	require.Equal(t, code, task.Error.Code, task.Error.Message)
	require.Equal(t, step, task.Error.Step)
	require.NotEmpty(t, task.Error.Message)
	shown := h.site.tasker(t, "task", "show", task.UUID)
	require.Zero(t, shown.code, shown.err)
	for _, word := range []string{code, step, "error"} {
		require.Contains(t, shown.out, word)
	}
}
