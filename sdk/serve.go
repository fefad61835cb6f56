package sdk

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/tasker-systems/tasker-host/sdk/wire"
)

const (
	drainTimeout  = 10 * time.Second       // after SIGTERM, for the steps in hand
	cancelTimeout = time.Second            // after that, for the steps to notice
	flushTimeout  = time.Second            // for the host to read the last outcomes and disconnect
	parentPoll    = 500 * time.Millisecond // between checks of the parent
)

// Serve serves the parts to the host that started the process. It does not return: it is all
// that a plugin's main function needs.
//
// Started by hand, the process prints what the plugin is and what can be done with it, and
// exits with code 1. With the argument describe it prints the plugin's description as JSON,
// with selftest it runs the self-test, and --help and --version work as usual: these exit with
// code 0 if all is well.
//
// Under a host, everything that is printed goes to the host's log, whatever it was printed to.
// After SIGTERM, running steps have up to ten seconds to finish. When the host is gone, the
// process ends.
func Serve(parts ...Part) {
	p, err := New(parts...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if os.Getenv(wire.Handshake.MagicCookieKey) != wire.Handshake.MagicCookieValue {
		os.Exit(byHand(p, os.Args, os.Stdout, os.Stderr))
	}
	if err := p.serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve serves until the host or a signal ends it, or the host dies.
func (p *Plugin) serve() error {
	parent := os.Getppid()
	stdio, err := takeStdout()
	if err != nil {
		return fmt.Errorf("serve plugin %s: %w", p.name, err)
	}
	adoptLoggers(p.logger, stdio.stderr)
	go p.watchParent(parent)
	go p.watchSignals()
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  wire.Handshake,
		VersionedPlugins: wire.Plugins(p),
		Logger:           p.logger.Named("go-plugin"),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			stdio.expose()
			opts = append(opts, wire.ServerOptions()...)
			opts = append(opts, grpc.UnaryInterceptor(stdio.unary), grpc.StreamInterceptor(stdio.stream))
			return grpc.NewServer(opts...)
		},
	})
	return nil
}

// watchSignals drains on SIGTERM and then ends the process.
func (p *Plugin) watchSignals() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	signal.Stop(signals) // a second one ends the process at once
	p.shutdown(drainTimeout)
	os.Exit(0)
}

// shutdown finishes the steps in hand, cancels what is left after the timeout,
// and ends the streams once all outcomes are sent.
func (p *Plugin) shutdown(timeout time.Duration) {
	p.logger.Info("draining", "in_flight", p.inFlight())
	ctx, done := context.WithTimeout(context.Background(), timeout)
	left := p.drain(ctx)
	done()
	if left > 0 {
		for _, s := range p.services {
			s.cancel(errDraining)
		}
		ctx, done := context.WithTimeout(context.Background(), cancelTimeout)
		left = p.drain(ctx)
		done()
	}
	for _, s := range p.services {
		s.close()
	}
	p.logger.Info("drained", "in_flight", left)
	<-time.After(flushTimeout) // a host that sees its streams end stops the process sooner
}

// watchParent ends the process when the host is gone, so that the process has another parent.
// The running steps were cancelled with their stream, and have nobody to report to.
func (p *Plugin) watchParent(parent int) {
	for range time.Tick(parentPoll) {
		if os.Getppid() == parent {
			continue
		}
		p.logger.Error("the host is gone, exiting", "in_flight", p.inFlight())
		ctx, done := context.WithTimeout(context.Background(), cancelTimeout)
		p.drain(ctx)
		done()
		os.Exit(3)
	}
}

// stdio is the process's standard output while it serves. File descriptor 1 becomes a second
// stderr before the author's code can print to it, because one stray line would break the
// handshake. Only go-plugin sees the real one, while it prints the handshake. It then replaces
// os.Stdout and os.Stderr by pipes whose output hosts discard; with the host's first call they
// become stderr again.
type stdio struct {
	real   *os.File // where the host waits for the handshake
	stderr *os.File
	once   sync.Once
}

// expose gives the real stdout to go-plugin, which prints the handshake next.
func (s *stdio) expose() { os.Stdout = s.real }

func (s *stdio) restore() { os.Stdout, os.Stderr = s.stderr, s.stderr }

func (s *stdio) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	s.once.Do(s.restore)
	return next(ctx, req)
}

func (s *stdio) stream(srv any, rpc grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	s.once.Do(s.restore)
	return next(srv, rpc)
}
