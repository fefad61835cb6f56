package fulfillment

import (
	"context"
	"time"

	"github.com/tasker-systems/tasker-host/sdk/handler"
)

const (
	rateLimitLasts = 60 * time.Second
	gatewayRetry   = 30 * time.Second
)

// paymentResult is the result of process_payment.
type paymentResult struct {
	PaymentProcessed  bool            `json:"payment_processed"`
	PaymentID         string          `json:"payment_id"`
	TransactionID     string          `json:"transaction_id"`
	AmountCharged     Money           `json:"amount_charged"`
	PaymentMethodUsed string          `json:"payment_method_used"`
	GatewayResponse   gatewayResponse `json:"gateway_response"`
	ProcessedAt       string          `json:"processed_at"`
	PaymentStatus     string          `json:"payment_status"`
}

// processPayment charges the order's total, not the amount that the customer
// announced in payment_info.amount.
func (s *service) processPayment(_ context.Context, step handler.Step) (handler.Result, error) {
	o, err := orderOf(step)
	if err != nil {
		return handler.Result{}, err
	}
	total, err := amountDue(step)
	if err != nil {
		return handler.Result{}, err
	}
	if err := checkPayment(o.Payment); err != nil {
		return handler.Result{}, err
	}
	reference := o.OrderID
	if reference == "" {
		reference = step.TaskUUID
	}
	response := s.charge(charge{
		ids:       s.idsOf(step),
		attempt:   step.Attempt,
		token:     o.Payment.Token,
		method:    o.Payment.Method,
		amount:    total,
		reference: reference,
	})
	if response.Status != gatewaySucceeded {
		return handler.Result{}, chargeError(response)
	}
	return answer(paymentResult{
		PaymentProcessed:  true,
		PaymentID:         s.idsOf(step).dated("PAY", 12),
		TransactionID:     response.TransactionID,
		AmountCharged:     response.Amount,
		PaymentMethodUsed: o.Payment.Method,
		GatewayResponse:   response,
		ProcessedAt:       s.timestamp(),
		PaymentStatus:     "completed",
	}, paymentMetadata(step, response))
}

// amountDue is the order's total, once goods are reserved for it.
func amountDue(step handler.Step) (Money, error) {
	validated, err := resultOf[validation](step, stepValidate, CodeMissingValidation)
	if err != nil {
		return 0, err
	}
	if validated.OrderTotal == nil {
		return 0, handler.Permanent(CodeMissingValidation, "the result of %s has no order_total", stepValidate)
	}
	if _, err := reservationOf(step); err != nil {
		return 0, err
	}
	return *validated.OrderTotal, nil
}

// reservationOf reads the result of reserve_inventory.
func reservationOf(step handler.Step) (reservation, error) {
	reserved, err := resultOf[reservation](step, stepReserve, CodeMissingReservation)
	if err != nil {
		return reservation{}, err
	}
	if reserved.ReservationID == "" {
		return reservation{}, handler.Permanent(CodeMissingReservation, "the result of %s has no reservation_id", stepReserve)
	}
	return reserved, nil
}

func checkPayment(p *paymentInfo) error {
	switch {
	case p == nil:
		return handler.Permanent(CodeMissingPaymentInfo, "payment_info is required")
	case p.Method == "":
		return handler.Permanent(CodeMissingPaymentMethod, "payment_info.method is required")
	case p.Token == "":
		return handler.Permanent(CodeMissingPaymentToken, "payment_info.token is required")
	default:
		return nil
	}
}

// chargeError classifies a charge that did not succeed. What the customer's
// bank refuses stays refused; everything else may succeed later.
func chargeError(r gatewayResponse) error {
	var err *handler.Error
	switch r.Status {
	case "card_declined", "insufficient_funds", "invalid_card":
		err = handler.Permanent(CodePaymentDeclined, "payment declined: %s", r.Status)
	case "authentication_failed", "invalid_token":
		err = handler.Permanent(CodePaymentAuthFailed, "payment authentication failed: %s", r.Status)
	case "rate_limited":
		err = handler.Retryable(rateLimitLasts, CodePaymentRateLimited, "payment gateway: rate limited")
	default:
		err = handler.Retryable(gatewayRetry, CodePaymentGateway, "payment gateway: %s", r.Status)
	}
	err.Context = map[string]any{"gateway_status": r.Status, "amount": r.Amount, "reference": r.Reference}
	return err
}

// paymentMetadata keeps what the gateway said about the exchange itself.
func paymentMetadata(step handler.Step, r gatewayResponse) map[string]any {
	return map[string]any{
		"operation":       "process_payment",
		"http_headers":    map[string]any{"idempotency-key": step.IdempotencyKey},
		"execution_hints": map[string]any{"gateway_response_time_ms": r.ProcessingTimeMS, "gateway_fee": r.GatewayFee},
		"backoff_hints":   map[string]any{"server_load": r.LoadIndicator},
	}
}
