// Package pluginhost keeps the plugins that run steps alive and carries steps
// to them.
package pluginhost
