package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/tasker-systems/tasker-host/sdk/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	plugintest.Conformance(t, part())
}
