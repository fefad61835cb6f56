package main

import (
	"testing"

	"github.com/tasker-systems/tasker-host/internal/leaks"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
)

func TestMain(m *testing.M) { leaks.Main(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	plugintest.Conformance(t, part())
}
