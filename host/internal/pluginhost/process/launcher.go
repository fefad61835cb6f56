package process

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Launcher forks processes from one thread. The kernel sends the parent-death
// signal when the thread that forked ends, so that thread must outlive every
// process it started.
type Launcher struct {
	jobs chan launchJob
	quit chan struct{}
	once sync.Once
	wg   sync.WaitGroup
}

type launchJob struct {
	path  string
	argv  []string
	attr  *os.ProcAttr
	reply chan launchReply
}

type launchReply struct {
	proc *os.Process
	err  error
}

var errLauncherClosed = errors.New("the launcher is closed")

// NewLauncher starts the thread, which Close ends.
func NewLauncher() *Launcher {
	l := &Launcher{jobs: make(chan launchJob), quit: make(chan struct{})}
	l.wg.Go(l.run)
	return l
}

// Close ends the thread, and with it any process that is still running: stop them first.
func (l *Launcher) Close() {
	l.once.Do(func() { close(l.quit) })
	l.wg.Wait()
}

func (l *Launcher) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	// Processes must not inherit from this thread the extra rights that a service manager
	// gave the host. A kernel that knows no ambient capabilities has none to clear.
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	for {
		select {
		case <-l.quit:
			return
		case job := <-l.jobs:
			proc, err := fork(job)
			job.reply <- launchReply{proc, err}
		}
	}
}

// fork starts the process. "Text file busy" means that another process, forked while the
// executable was being written, still holds it open for writing; it lets go as soon as it
// executes something else.
func fork(job launchJob) (*os.Process, error) {
	for try := range 4 {
		proc, err := os.StartProcess(job.path, job.argv, job.attr)
		if !errors.Is(err, syscall.ETXTBSY) {
			return proc, err
		}
		time.Sleep(10 * time.Millisecond << try) // no event tells when it has let go
	}
	return os.StartProcess(job.path, job.argv, job.attr)
}

// start forks on the launcher's thread.
func (l *Launcher) start(path string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	job := launchJob{path, argv, attr, make(chan launchReply, 1)}
	select {
	case l.jobs <- job:
		r := <-job.reply
		return r.proc, r.err
	case <-l.quit:
		return nil, errLauncherClosed
	}
}
