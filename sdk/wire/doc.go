// Package wire is the glue between go-plugin and the plugin contract, for both
// ends: the handshake, the one plugin of the plugin set, and the limits of
// messages. The host's plugin runner and sdk.Serve import it; authors of
// plugins need not know it.
//
// It starts nothing and knows nothing about processes, steps or retries. It
// uses no broker and no callbacks: the host calls, the plugin answers.
//
// The host's end:
//
//	client := plugin.NewClient(&plugin.ClientConfig{
//		HandshakeConfig:  wire.Handshake,
//		VersionedPlugins: wire.Plugins(nil),
//		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
//		GRPCDialOptions:  wire.DialOptions(),
//		...
//	})
//	protocol, err := client.Client()
//	raw, err := protocol.Dispense(wire.Name)
//	remote := raw.(*wire.Client)
package wire
