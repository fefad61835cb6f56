package main

import (
	"testing"

	"github.com/tasker-systems/tasker-host/sdk/plugintest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	plugintest.Conformance(t, plugin())
}
