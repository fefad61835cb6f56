package payload

import (
	"math"
	"strconv"
)

// Integer reads a whole JSON number, however it is written: 1e2 and 100.0 are 100.
// Numbers that may be inexact, from 2^53 on, must be plain digits.
func Integer(raw []byte) (n int64, ok bool) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	const exact = 1 << 53
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= exact {
		return 0, false
	}
	return int64(f), true
}

// The range of PostgreSQL's numeric, which is the type of numbers in jsonb.
const (
	maxWhole    = 131072    // digits before the decimal point
	maxFraction = 16383     // digits after it, including trailing zeros
	maxExponent = 1<<30 - 2 // what its parser accepts, even for zero
)

// number reads the number at i and checks that numeric can hold it.
func (s *scanner) number(i int) (int, *fault) {
	raw, start := s.raw, i
	if raw[i] == '-' {
		i++
	}
	whole := i
	i = digits(raw, i)
	switch {
	case i == whole:
		return i, &fault{Syntax, start, "not a number: a digit must follow the minus"}
	case raw[whole] == '0' && i > whole+1:
		return i, &fault{Syntax, start, "a number must not begin with 0: write it without, or as a string"}
	}
	point := i
	if i < len(raw) && raw[i] == '.' {
		i = digits(raw, i+1)
		if i == point+1 {
			return i, &fault{Syntax, start, "not a number: a digit must follow the decimal point"}
		}
	}
	if i == len(raw) || raw[i]|0x20 != 'e' {
		if point-whole <= maxWhole && i-point-1 <= maxFraction {
			return i, nil // the common case
		}
		return i, s.numeric(start, whole, point, i, 0)
	}
	end := i
	exponent, i, ok := readExponent(raw, i+1)
	if !ok {
		return i, &fault{Syntax, start, "not a number: a digit must follow the exponent's e"}
	}
	if f := s.numeric(start, whole, point, end, exponent); f != nil {
		return i, f
	}
	return i, s.grow(start, whole, point, end, exponent, i)
}

// numeric checks a number's mantissa, whole digits raw[whole:point] and fraction up to
// end, times ten to the exponent. It counts as PostgreSQL does: leading zeros are free,
// trailing ones are not, and zero has no size but its fraction.
func (s *scanner) numeric(start, whole, point, end, exponent int) *fault {
	fraction := max(end-point-1, 0)
	if exponent > maxExponent || exponent < -maxExponent || fraction-exponent > maxFraction {
		return outOfRange(start)
	}
	lead := whole // the first nonzero digit
	for lead < end && (s.raw[lead] == '0' || s.raw[lead] == '.') {
		lead++
	}
	if lead == end {
		return nil
	}
	size := point - lead // digits before the decimal point, less than 1 for a fraction
	if lead > point {
		size++
	}
	if size+exponent > maxWhole {
		return outOfRange(start)
	}
	return nil
}

// grow charges the budget for the extra bytes that the number needs when written without
// an exponent, as jsonb writes it.
func (s *scanner) grow(start, whole, point, end, exponent, next int) *fault {
	fraction := max(end-point-1, 0)
	written := max(point-whole+exponent, 1) + max(fraction-exponent, 0)
	s.budget -= max(written-(next-start), 0)
	if s.budget < 0 {
		return &fault{TooLarge, start, "numbers with exponents are stored written out, and so the document exceeds its size limit: send them as strings"}
	}
	return nil
}

func outOfRange(offset int) *fault {
	return &fault{NumberRange, offset, "the number is out of range: at most 131072 digits before the decimal point and 16383 after it; send it as a string"}
}

// readExponent reads the sign and digits of an exponent. A value beyond maxExponent is
// returned as some value beyond it.
func readExponent(raw []byte, i int) (exponent, next int, ok bool) {
	negative := false
	if i < len(raw) && (raw[i] == '+' || raw[i] == '-') {
		negative = raw[i] == '-'
		i++
	}
	first := i
	for i < len(raw) && raw[i]-'0' <= 9 {
		exponent = min(exponent*10+int(raw[i]-'0'), maxExponent+1)
		i++
	}
	if negative {
		exponent = -exponent
	}
	return exponent, i, i > first
}

func digits(raw []byte, i int) int {
	for i < len(raw) && raw[i]-'0' <= 9 {
		i++
	}
	return i
}
