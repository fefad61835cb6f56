package workflow

import (
	"math/big"
	"regexp"
	"strings"
)

// scalarKind is the type a plain scalar is read as.
type scalarKind int

const (
	stringScalar scalarKind = iota
	nullScalar
	boolScalar
	intScalar
	floatScalar
	badScalar // YAML readers disagree about it, or JSON cannot express it
)

// scalar is a plain scalar as read: its kind and its JSON text, or what is
// wrong with it.
type scalar struct {
	kind scalarKind
	json string // for all kinds but strings
	hint string // for badScalar
}

// The forms of YAML 1.2's core schema, and those that other YAML readers take for
// numbers, which we reject rather than guess.
var (
	intForm   = regexp.MustCompile(`^[-+]?[0-9]+$`)
	baseForm  = regexp.MustCompile(`^(0o[0-7]{1,64}|0x[0-9a-fA-F]{1,64})$`)
	floatForm = regexp.MustCompile(`^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`)
	noNumber  = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)
	ambiguous = regexp.MustCompile(`^[-+]?(0[0-9]+(\.[0-9]*)?|0b[01_]+|0[ox][0-9a-fA-F_]*_[0-9a-fA-F_]*|[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?|[0-9][0-9_]*(:[0-5]?[0-9])+)$`)
)

// resolve reads a plain scalar. Numbers keep their digits, since they are never converted
// to floats.
func resolve(text string) scalar {
	switch text {
	case "", "~", "null", "Null", "NULL":
		return scalar{kind: nullScalar, json: "null"}
	case "true", "True", "TRUE":
		return scalar{kind: boolScalar, json: "true"}
	case "false", "False", "FALSE":
		return scalar{kind: boolScalar, json: "false"}
	}
	if c := text[0]; c != '-' && c != '+' && c != '.' && (c < '0' || c > '9') {
		return scalar{kind: stringScalar}
	}
	switch {
	case noNumber.MatchString(text):
		return scalar{kind: badScalar, hint: "JSON has no infinity or NaN: leave it out, or quote it"}
	case ambiguous.MatchString(text):
		return scalar{kind: badScalar, hint: "ambiguous, since not all YAML parsers read it as a number: write a plain decimal number, or quote it"}
	case baseForm.MatchString(text):
		n, _ := new(big.Int).SetString(text, 0)
		return scalar{kind: intScalar, json: n.String()}
	case intForm.MatchString(text):
		return scalar{kind: intScalar, json: strings.TrimPrefix(text, "+")}
	case floatForm.MatchString(text):
		return scalar{kind: floatScalar, json: jsonFloat(text)}
	}
	return scalar{kind: stringScalar}
}

// jsonFloat formats a YAML float as JSON does: with a digit on both sides of the point
// and no leading plus.
func jsonFloat(text string) string {
	text, negative := strings.CutPrefix(strings.TrimPrefix(text, "+"), "-")
	mantissa, exponent := text, ""
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		mantissa, exponent = text[:i], text[i:]
	}
	if strings.HasPrefix(mantissa, ".") {
		mantissa = "0" + mantissa
	}
	mantissa = strings.TrimSuffix(mantissa, ".")
	if negative {
		mantissa = "-" + mantissa
	}
	return mantissa + exponent
}
