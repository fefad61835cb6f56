package wire

import (
	"context"
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"

	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
	"github.com/tasker-systems/tasker-host/sdk/vocab"
)

const (
	// Name is the key of the one plugin in the plugin set: what the host
	// dispenses.
	Name = "tasker"

	// ProtocolVersion is the version of the contract in
	// sdk/proto/tasker/plugin/v1 that this package speaks.
	ProtocolVersion = 1

	// MaxResultBytes is the largest result of a step. A larger one fails the
	// step for good with the error type InvalidResult.
	MaxResultBytes = 4 << 20

	// MaxNoteBytes is the longest note of a step's progress; more is cut off.
	MaxNoteBytes = 256

	// MaxMessageBytes is the largest message either end takes: 8 MiB of steps
	// and their inputs, and room for what goes around them.
	MaxMessageBytes = 8<<20 + 64<<10
)

const (
	// Large enough to send a batch of steps or outcomes in one system call, as a
	// rule.
	bufferBytes = 128 << 10
	// A fixed window saves the pings with which gRPC estimates one: the socket
	// is local, and its buffer slows down an end that sends too fast.
	windowBytes = 4 << 20
	// The text of an error is in a header.
	headerBytes = 64 << 10
)

// The kinds of slots.
const (
	KindHandler = "handler"
	KindScaling = "scaling"
	KindHealth  = "health"
)

// The abilities of a slot of kind health.
const (
	AbilityCheck  = "check"
	AbilityReport = "report"
)

// CodeCancelled is the code of a failure that is no verdict of the handler: the
// host cancelled the attempt, or the plugin drains and did not run or finish
// it. The attempt should be counted as released.
//
// A handler's own failure must not have it: see [CodeHandlerCancelled].
const CodeCancelled = "CANCELLED"

// CodeHandlerCancelled is sent instead of [CodeCancelled] if that is the code
// of a handler's own failure, which is a verdict.
const CodeHandlerCancelled = "HANDLER_CANCELLED"

// HandsBack reports whether a failure hands the step back: it has
// [CodeCancelled], and is not a failure for good, which only a handler decides.
func HandsBack(f *pluginv1.Failure) bool {
	if f.GetCode() != CodeCancelled {
		return false
	}
	t := vocab.ErrorType(f.GetType())
	return f.GetRetryable() || t != vocab.PermanentError && t != vocab.ValidationError
}

// Handshake is how a host and a plugin recognise each other. The cookie
// distinguishes a start by a host from a start by hand; it is not a protection.
var Handshake = plugin.HandshakeConfig{
	MagicCookieKey:   "TASKER_PLUGIN_COOKIE",
	MagicCookieValue: "3f5b8a1e-7d0c-4c55-9c62-7a1f0e6d9b24",
}

// Server is the plugin's end: the services it registers.
type Server interface {
	Register(grpc.ServiceRegistrar)
}

// Client is the host's end of one plugin process.
type Client struct {
	// Plugin is served by every plugin.
	Plugin pluginv1.PluginClient
	// Handler is served by plugins with slots of kind handler.
	Handler pluginv1.HandlerClient
	// Scaling is served by plugins with slots of kind scaling.
	Scaling pluginv1.ScalingClient
	// Health is served by plugins with slots of kind health.
	Health pluginv1.HealthClient
	// Exited is closed when the process has ended, within a millisecond of it.
	Exited <-chan struct{}
}

// Plugins returns the plugin sets by protocol version: with the server in a
// plugin, with nil in a host. Each call returns new ones, because go-plugin
// writes into them.
func Plugins(server Server) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{ProtocolVersion: {Name: &Plugin{Services: server}}}
}

// DialOptions returns the host's gRPC options: the caps on messages and errors,
// which replace go-plugin's 2 GiB and gRPC's 16 MiB, and what a local socket is read and written with.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxMessageBytes),
			grpc.MaxCallSendMsgSize(MaxMessageBytes),
			grpc.ForceCodecV2(bounded{encoding.GetCodecV2(proto.Name)}),
		),
		grpc.WithMaxHeaderListSize(headerBytes),
		grpc.WithReadBufferSize(bufferBytes), grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithInitialWindowSize(windowBytes), grpc.WithInitialConnWindowSize(windowBytes),
	}
}

// ServerOptions returns the plugin's gRPC options: as [DialOptions].
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.ReadBufferSize(bufferBytes), grpc.WriteBufferSize(bufferBytes),
		grpc.InitialWindowSize(windowBytes), grpc.InitialConnWindowSize(windowBytes),
	}
}

// Plugin is the go-plugin value of both ends. Use [Plugins] to make it.
type Plugin struct {
	plugin.NetRPCUnsupportedPlugin
	// Services is what a plugin serves; nil in a host.
	Services Server
}

var _ plugin.GRPCPlugin = (*Plugin)(nil)

// GRPCServer registers the plugin's services; go-plugin calls it.
func (p *Plugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	if p.Services == nil {
		return errors.New("serve plugin: no server given")
	}
	p.Services.Register(s)
	return nil
}

// GRPCClient returns a *[Client]; go-plugin calls it with a context that ends
// with the process.
func (p *Plugin) GRPCClient(process context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewClient(process, conn), nil
}

// NewClient returns the host's end of a connection. Exited closes when the
// context ends.
func NewClient(process context.Context, conn grpc.ClientConnInterface) *Client {
	return &Client{
		Plugin:  pluginv1.NewPluginClient(conn),
		Handler: pluginv1.NewHandlerClient(conn),
		Scaling: pluginv1.NewScalingClient(conn),
		Health:  pluginv1.NewHealthClient(conn),
		Exited:  process.Done(),
	}
}
