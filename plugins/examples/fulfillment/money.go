package fulfillment

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// Money is an amount in whole cents. As JSON it is a number with two decimals,
// such as 209.97, written and read digit by digit.
type Money int64

// maxMoney bounds the amounts that are read, so that no sum of an order can
// overflow: 50 lines of a million units at this price take half of the range.
const maxMoney Money = 100_000_000_000 // 1,000,000,000.00

var (
	errNotMoney = errors.New("not an amount of money")
	errFraction = errors.New("more than two decimals")
	errTooMuch  = fmt.Errorf("beyond ±%s", maxMoney)
)

// ParseMoney reads a JSON number. It is an error if it has more than two
// significant decimals, is beyond ±1,000,000,000.00, or is not a number.
func ParseMoney(number string) (Money, error) {
	amount, ok := parseRat(number)
	if !ok {
		return 0, errNotMoney
	}
	amount.Mul(amount, big.NewRat(100, 1))
	switch {
	case !amount.IsInt():
		return 0, errFraction
	case amount.Num().CmpAbs(big.NewInt(int64(maxMoney))) > 0:
		return 0, errTooMuch
	}
	return Money(amount.Num().Int64()), nil
}

// parseRat reads a JSON number exactly. It refuses what only an attacker would
// write: endless digits, and exponents that would expand into them.
func parseRat(number string) (*big.Rat, bool) {
	const maxLen, maxExponent = 64, 20
	if len(number) > maxLen || strings.ContainsAny(number, "/_xXpP") {
		return nil, false
	}
	if i := strings.IndexAny(number, "eE"); i >= 0 {
		exponent, err := strconv.Atoi(number[i+1:])
		if err != nil || exponent < -maxExponent || exponent > maxExponent {
			return nil, false
		}
	}
	return new(big.Rat).SetString(number)
}

// parseWhole reads a JSON number that is a whole number, such as 2 or 2.0.
func parseWhole(number string) (int64, bool) {
	r, ok := parseRat(number)
	if !ok || !r.IsInt() || !r.Num().IsInt64() {
		return 0, false
	}
	return r.Num().Int64(), true
}

// rat returns the amount as an exact fraction, for comparisons with amounts
// that are not whole cents.
func (m Money) rat() *big.Rat { return big.NewRat(int64(m), 100) }

// Times returns the amount for n units.
func (m Money) Times(n int64) Money { return m * Money(n) }

// PerMille returns the given number of thousandths of the amount, rounded to
// whole cents, half a cent away from zero.
func (m Money) PerMille(thousandths int64) Money {
	product := int64(m) * thousandths
	if product < 0 {
		return Money((product - 500) / 1000)
	}
	return Money((product + 500) / 1000)
}

// String returns the amount with two decimals.
func (m Money) String() string {
	sign := ""
	if m < 0 {
		sign, m = "-", -m
	}
	return fmt.Sprintf("%s%d.%02d", sign, m/100, m%100)
}

// MarshalJSON writes the amount as a number with two decimals.
func (m Money) MarshalJSON() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalJSON reads what [ParseMoney] does.
func (m *Money) UnmarshalJSON(raw []byte) error {
	parsed, err := ParseMoney(string(raw))
	if err != nil {
		return fmt.Errorf("%.40s: %w", raw, err)
	}
	*m = parsed
	return nil
}
