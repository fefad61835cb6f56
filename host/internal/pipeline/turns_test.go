package pipeline

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// What is stuck and what is not: a loop that waits for work may rest, one that runs at
// intervals may not, a turn must end, and one that keeps asking a silent database is
// working.
func TestLoopsThatHangAreFound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &Engine{base: time.Now()}
		rests, ticks := &turns{name: "rests"}, &turns{name: "ticks", every: func() time.Duration { return time.Second }}
		e.watched = []*turns{rests, ticks}
		for _, w := range e.watched {
			w.started(e)
		}
		stuck := func() (names []string) {
			for _, l := range e.Loops() {
				if l.Stuck > 0 {
					names = append(names, l.Name)
				}
			}
			return names
		}
		<-time.After(turnLimit)
		require.Empty(t, stuck())
		<-time.After(2 * time.Second)
		require.Equal(t, []string{"ticks"}, stuck(), "it has not begun its next turn")
		e.turn(ticks, func() {})
		require.Empty(t, stuck())

		let, done := make(chan struct{}), make(chan struct{})
		go func() { e.turn(rests, func() { <-let }); close(done) }()
		<-time.After(turnLimit / 2)
		e.turn(ticks, func() {})
		require.Empty(t, stuck())
		<-time.After(turnLimit)
		e.asked.Store(int64(time.Since(e.base))) // a call was just repeated
		e.turn(ticks, func() {})
		require.Empty(t, stuck())
		<-time.After(turnLimit + time.Second)
		e.turn(ticks, func() {})
		require.Equal(t, []string{"rests"}, stuck())
		close(let)
		<-done
		require.Empty(t, stuck())
		ticks.over.Store(true)
		<-time.After(time.Hour)
		require.Empty(t, stuck(), "a loop that was stopped")
	})
}
