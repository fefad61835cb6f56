// Package deploy holds what runs a host in earnest: a systemd unit, a container
// file, Kubernetes manifests, a Grafana dashboard and Prometheus alert rules. It
// has no code; its tests check the files against the host, as far as that is
// possible without a cluster. docs/deploy.md says how to use them.
package deploy
