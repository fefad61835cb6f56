package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/tasker-systems/tasker-host/host/internal/pluginhost"
	"github.com/tasker-systems/tasker-host/host/internal/store"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

// listener is told how far steps are.
type listener interface {
	TellProgress(ctx context.Context, host int32, told []store.Told, ended []vocab.UUID) error
}

// Progress reports are written for those who ask other hosts: at most one write per
// interval, of a bounded number of steps.
const (
	tellEvery = time.Second
	tellMost  = 1000
)

// progressLoop writes the progress that steps report. It rests while none do.
func (e *Engine) progressLoop() {
	for {
		select {
		case <-e.held.news.come:
		case <-e.work.Done():
			return
		}
		e.tell()
		select {
		case <-time.After(tellEvery):
		case <-e.work.Done():
			return
		}
	}
}

// tell writes what is new. What cannot be written now is written later.
func (e *Engine) tell() {
	told, ended := e.held.unwritten(tellMost)
	if len(told) == 0 && len(ended) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(e.work, callTimeout)
	defer cancel()
	if err := e.store.TellProgress(ctx, e.HostID(), told, ended); err != nil && e.work.Err() == nil {
		e.log.Debug("the progress of steps could not be recorded", "error", err)
		e.held.writeAgain(told, ended)
	}
}

// news is what the database does not yet know about the progress of steps, by lease.
type news struct {
	come    chan struct{} // signalled when there is some
	told    map[vocab.UUID]pluginhost.Progress
	ended   []vocab.UUID            // of which something was written
	written map[vocab.UUID]struct{} // of which something was written, and which have not ended
}

func newNews() news {
	return news{come: make(chan struct{}, 1), told: map[vocab.UUID]pluginhost.Progress{}, written: map[vocab.UUID]struct{}{}}
}

func (n *news) add(lease vocab.UUID, p pluginhost.Progress) {
	n.told[lease] = p
	signal(n.come)
}

func (n *news) end(lease vocab.UUID) {
	delete(n.told, lease)
	if _, written := n.written[lease]; written {
		delete(n.written, lease)
		n.ended = append(n.ended, lease)
		signal(n.come)
	}
}

// unwritten returns what to write now, of at most most steps, and marks it as written.
func (h *held) unwritten(most int) (told []store.Told, ended []vocab.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := &h.news
	for lease, p := range n.told {
		if len(told) == most {
			break
		}
		told = append(told, store.Told{Lease: lease, Percent: p.Percent, Note: p.Note})
		delete(n.told, lease)
		n.written[lease] = struct{}{}
	}
	ended = n.ended[:min(most, len(n.ended))]
	if n.ended = n.ended[len(ended):]; len(n.told)+len(n.ended) > 0 {
		signal(n.come)
	}
	return told, ended
}

// writeAgain notes that what unwritten returned could not be written.
func (h *held) writeAgain(told []store.Told, ended []vocab.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := &h.news
	for _, t := range told {
		_, newer := n.told[t.Lease]
		if _, runs := n.written[t.Lease]; runs && !newer {
			n.told[t.Lease] = pluginhost.Progress{Percent: t.Percent, Note: t.Note}
		}
	}
	n.ended = slices.Concat(ended, n.ended)
	signal(n.come)
}
