// Package leaks finds goroutines that the tests of a package leave behind.
package leaks

import (
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end after the tests have. goleak by
// itself gives them half a second, which is little where the machine is busy, or
// stands still for a while: connections, for one, are closed beside their owners.
const patience = time.Minute

// Main is [goleak.VerifyTestMain] with patience.
func Main(m goleak.TestingM, options ...goleak.Option) {
	goleak.VerifyTestMain(patient{m, options}, options...)
}

// Find is [goleak.Find] with patience.
func Find(options ...goleak.Option) (err error) {
	for end := time.Now().Add(patience); ; {
		if err = goleak.Find(options...); err == nil || time.Now().After(end) {
			return err // it has waited a little by itself
		}
	}
}

type patient struct {
	goleak.TestingM
	options []goleak.Option
}

// Run runs the tests, and waits for their goroutines if all went well.
func (p patient) Run() (code int) {
	if code = p.TestingM.Run(); code == 0 {
		_ = Find(p.options...) // goleak finds them again, and says which
	}
	return code
}
