// Package fulfillment holds the handlers of the example workflow that takes an
// order from validation to shipment: validate_order, reserve_inventory,
// process_payment and ship_order. Catalogue, inventory, payment gateway and
// carriers are simulated here; what is real is how the steps treat input,
// money, failures and repetition:
//
//   - Money is whole cents, from the request to the last result; no binary
//     fraction ever touches it.
//   - Every failure is classified: permanent with a stable code, or retryable
//     with the time after which to try again.
//   - Every effect is idempotent: the identifiers of a reservation, a payment,
//     a transaction and a shipment are derived from the step's idempotency key,
//     so a step that runs twice reserves, charges and ships once.
//
// The handlers rely on the step names of templates/process_order.yaml, because
// they read each other's results. Nothing here is started or stopped:
// plugins/handlers/fulfillment serves it.
package fulfillment
