package fulfillment

import "strings"

// The simulated payment gateway decides by the payment token, so that every outcome can be
// produced by an ordinary task:
//
//	tok_card_declined, tok_insufficient_funds,
//	tok_invalid_card                            the bank refuses: permanent
//	tok_authentication_failed, tok_invalid_token  the gateway refuses us or the token: permanent
//	tok_rate_limited                            retryable after 60 s
//	tok_gateway_error, tok_network_timeout      retryable after 30 s
//	the last three with the suffix _once       fail on the first attempt only
//	any other                                   succeeds
//
// Like a real one, it charges once per idempotency key: its answer depends on the key, never on
// chance.

const gatewaySucceeded = "succeeded"

// charge is a request to the gateway.
type charge struct {
	ids       ids
	attempt   int
	token     string
	method    string
	amount    Money
	reference string
}

// gatewayResponse is the gateway's answer, kept in the step's result.
type gatewayResponse struct {
	Status            string `json:"status"`
	TransactionID     string `json:"transaction_id"`
	Amount            Money  `json:"amount"`
	Currency          string `json:"currency"`
	PaymentMethodType string `json:"payment_method_type"`
	Reference         string `json:"reference"`
	GatewayFee        Money  `json:"gateway_fee"`
	ProcessedAt       string `json:"processed_at"`
	ProcessingTimeMS  uint64 `json:"processing_time_ms"`
	LoadIndicator     string `json:"load_indicator"`
}

func (s *service) charge(c charge) gatewayResponse {
	const (
		feePerMille                = 29 // 2.9 %
		fastest, slowest, highLoad = 50, 249, 200
	)
	millis := fastest + c.ids.number("processing time", slowest-fastest+1)
	load := "normal"
	if millis > highLoad {
		load = "high"
	}
	return gatewayResponse{
		Status:            statusFor(c.token, c.attempt),
		TransactionID:     "TXN-" + c.ids.hex("TXN", 16),
		Amount:            c.amount,
		Currency:          "USD",
		PaymentMethodType: c.method,
		Reference:         c.reference,
		GatewayFee:        c.amount.PerMille(feePerMille),
		ProcessedAt:       s.timestamp(),
		ProcessingTimeMS:  millis,
		LoadIndicator:     load,
	}
}

func statusFor(token string, attempt int) string {
	status, found := strings.CutPrefix(token, "tok_")
	if !found {
		return gatewaySucceeded
	}
	transient, once := strings.CutSuffix(status, "_once")
	switch transient {
	case "rate_limited", "gateway_error", "network_timeout":
		if once && attempt > 1 {
			return gatewaySucceeded
		}
		return transient
	}
	switch status {
	case "card_declined", "insufficient_funds", "invalid_card", "authentication_failed", "invalid_token":
		return status
	default:
		return gatewaySucceeded
	}
}
