// Package rate sizes a pool by the rate of work: as many executors as the arriving work keeps
// busy at the target utilization, plus those that work off a backlog in time.
//
//	n = (λ + depth/drain) · S / target        at most factor · current
//
// with λ the arrivals per second and S the seconds an executor spends on a piece of work, both
// over a window. The product λ·S is the offered load in erlangs. The reference system promises
// scaling by rate but has none. This algorithm combines its rule n · utilization / target (here
// with utilization = λ·S/n) and the cap of its specification TAS-34, a factor of 2. Unlike
// utilization, which ends at 1, the arrival rate shows how much is missing.
package rate
