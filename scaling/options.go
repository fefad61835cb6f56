package scaling

import (
	"errors"
	"fmt"
	"time"
)

// Duration is an option that is written like "1m30s".
type Duration time.Duration

// MarshalText writes the duration as [time.Duration.String] does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what [time.ParseDuration] reads.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// D returns the duration as the standard library has it.
func (d Duration) D() time.Duration { return time.Duration(d) }

// Seconds returns the duration in seconds.
func (d Duration) Seconds() float64 { return time.Duration(d).Seconds() }

// String returns the duration as it is written.
func (d Duration) String() string { return time.Duration(d).String() }

// OptionError says which option is wrong.
type OptionError struct {
	Path    string // a JSON pointer into the options, such as /target
	Message string // what is wrong with it and what would be right
}

var _ error = (*OptionError)(nil)

// Error returns the path and the message.
func (e *OptionError) Error() string { return e.Path + ": " + e.Message }

// Checks collects what is wrong with a struct of options.
type Checks struct{ problems []error }

// Require adds a problem of the named option unless ok.
func (c *Checks) Require(ok bool, name, format string, args ...any) {
	if !ok {
		c.problems = append(c.problems, &OptionError{Path: "/" + name, Message: fmt.Sprintf(format, args...)})
	}
}

// Between adds a problem unless least <= v <= most.
func (c *Checks) Between(name string, v, least, most float64) {
	c.Require(v >= least && v <= most, name, "%g: want %g to %g", v, least, most)
}

// Time adds a problem unless least <= v <= most.
func (c *Checks) Time(name string, v Duration, least, most time.Duration) {
	c.Require(v.D() >= least && v.D() <= most, name, "%s: want %s to %s", v, least, most)
}

// Err returns all problems, nil if there is none.
func (c *Checks) Err() error { return errors.Join(c.problems...) }

// Problems splits the error of a check. If an error names no option, its path
// is empty.
func Problems(err error) []*OptionError {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // only the outermost one is split
		var all []*OptionError
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if o, ok := errors.AsType[*OptionError](err); ok {
		return []*OptionError{o}
	}
	return []*OptionError{{Message: err.Error()}}
}
