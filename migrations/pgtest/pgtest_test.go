package pgtest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/tasker-systems/tasker-host/migrations"
	"github.com/tasker-systems/tasker-host/migrations/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNew(t *testing.T) {
	t.Parallel()
	for range 5 {
		began := time.Now()
		pool := pgtest.New(t)
		t.Log("clone", time.Since(began))
		require.NoError(t, migrations.Check(t.Context(), pool))
	}
}
