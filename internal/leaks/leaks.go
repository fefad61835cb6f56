// Package leaks finds goroutines that the tests of a package leave behind.
package leaks

import (
	"time"

	"go.uber.org/goleak"
)

// patience is how long goroutines may take to end after the tests have. goleak itself
// allows half a second, which is too little if the machine is busy or pauses for a while:
// connections, for example, are closed in the background.
const patience = time.Minute

// Main is [goleak.VerifyTestMain] with patience.
func Main(m goleak.TestingM, options ...goleak.Option) {
	goleak.VerifyTestMain(patient{m, options}, options...)
}

// Find is [goleak.Find] with patience.
func Find(options ...goleak.Option) (err error) {
	for end := time.Now().Add(patience); ; {
		if err = goleak.Find(options...); err == nil || time.Now().After(end) {
			return err // goleak has already waited a little
		}
	}
}

type patient struct {
	goleak.TestingM
	options []goleak.Option
}

// Run runs the tests, and waits for their goroutines if the tests passed.
func (p patient) Run() (code int) {
	if code = p.TestingM.Run(); code == 0 {
		_ = Find(p.options...) // goleak finds them again and reports them
	}
	return code
}
