package core

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
)

// These rates show where the host waits without slowing it by more than the benchmark's
// own spread: one stack per tenth of a millisecond of blocking, and one per hundred
// contentions of a mutex.
const (
	blockRate = 100_000 // nanoseconds
	mutexRate = 100
)

// profiled calls run and writes profiles of this process to files in dir: cpu, allocs,
// block and mutex.
func profiled(dir string, run func() error) (err error) {
	cpu, err := os.Create(filepath.Join(dir, "host.cpu.pprof"))
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	runtime.SetBlockProfileRate(blockRate)
	before := runtime.SetMutexProfileFraction(mutexRate)
	defer func() {
		runtime.SetBlockProfileRate(0)
		runtime.SetMutexProfileFraction(before)
	}()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	err = run()
	pprof.StopCPUProfile()
	for _, name := range []string{"allocs", "block", "mutex"} {
		err = errors.Join(err, writeTo(filepath.Join(dir, "host."+name+".pprof"), func(w io.Writer) error {
			return pprof.Lookup(name).WriteTo(w, 0)
		}))
	}
	return err
}

func writeTo(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(f); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
