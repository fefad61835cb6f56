package fulfillment

// The codes of the errors that the steps return. All are permanent except the three of the last
// group.
const (
	// Any step: the task's context does not have the shape of an order.
	CodeInvalidContext = "INVALID_CONTEXT"
	// reserve_inventory: the template configures the step wrongly.
	CodeInvalidConfig = "INVALID_STEP_CONFIG"

	// validate_order, in the order of its checks.
	CodeMissingCustomerID    = "MISSING_CUSTOMER_ID"
	CodeMissingCustomerEmail = "MISSING_CUSTOMER_EMAIL"
	CodeMissingOrderItems    = "MISSING_ORDER_ITEMS"
	CodeMaxItemsExceeded     = "MAX_ITEMS_EXCEEDED"
	CodeInvalidOrderItem     = "INVALID_ORDER_ITEM"
	CodeInvalidQuantity      = "INVALID_QUANTITY"
	CodeInvalidPrice         = "INVALID_PRICE"
	CodeProductNotFound      = "PRODUCT_NOT_FOUND"
	CodeOrderTotalTooHigh    = "ORDER_TOTAL_TOO_HIGH"
	CodeMaxValueExceeded     = "MAX_VALUE_EXCEEDED"
	CodeMinValueNotMet       = "MIN_VALUE_NOT_MET"

	// reserve_inventory.
	CodeMissingDependencies   = "MISSING_DEPENDENCY_RESULTS"
	CodeNoValidatedItems      = "NO_VALIDATED_ITEMS"
	CodeProductNotInInventory = "PRODUCT_NOT_IN_INVENTORY"

	// process_payment, the first two also ship_order.
	CodeMissingValidation    = "MISSING_VALIDATION_RESULTS"
	CodeMissingReservation   = "MISSING_RESERVATION_RESULTS"
	CodeMissingPaymentInfo   = "MISSING_PAYMENT_INFO"
	CodeMissingPaymentMethod = "MISSING_PAYMENT_METHOD"
	CodeMissingPaymentToken  = "MISSING_PAYMENT_TOKEN"
	CodePaymentDeclined      = "PAYMENT_DECLINED"
	CodePaymentAuthFailed    = "PAYMENT_AUTH_FAILED"

	// ship_order.
	CodeMissingPayment         = "MISSING_PAYMENT_RESULTS"
	CodeMissingShippingInfo    = "MISSING_SHIPPING_INFO"
	CodeMissingShippingAddress = "MISSING_SHIPPING_ADDRESS"

	// Retryable.
	CodeInsufficientStock  = "INSUFFICIENT_STOCK"    // reserve_inventory, after 60 s
	CodePaymentRateLimited = "PAYMENT_RATE_LIMITED"  // process_payment, after 60 s
	CodePaymentGateway     = "PAYMENT_GATEWAY_ERROR" // process_payment, after 30 s
)
