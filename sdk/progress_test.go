package sdk_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk/handler"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

// Frequent reports of a step are sent a few times a second, including the latest
// one, and none after its outcome.
func TestProgressIsCoalesced(t *testing.T) {
	t.Parallel()
	_, stream := open(t, func(ctx context.Context, s handler.Step) (handler.Result, error) {
		for began, i := time.Now(), 0; time.Since(began) < 400*time.Millisecond; i++ {
			handler.Progress(ctx, i/50, strings.Repeat("é", i%1000))
		}
		handler.Progress(ctx, 1000, "last\x00word")
		<-ctx.Done()
		handler.Progress(ctx, 7, "too late")
		return echo(ctx, s)
	})
	started := time.Now()
	require.NoError(t, stream.Send(&pluginv1.WorkRequest{Steps: []*pluginv1.Step{
		{CallId: 1, Handler: "h", Context: []byte("{}")},
	}}))
	var reports []*pluginv1.Progress
	said := func() bool { return len(reports) > 0 && reports[len(reports)-1].GetNote() == "last\uFFFDword" }
	for ended, cancelled := false, false; !ended; {
		response, err := stream.Recv()
		require.NoError(t, err)
		reports = append(reports, response.GetProgress()...)
		ended = len(response.GetOutcomes()) > 0
		if said() && !cancelled {
			cancelled = true
			require.NoError(t, stream.Send(&pluginv1.WorkRequest{Cancels: []*pluginv1.Cancel{{CallId: 1}}}))
		}
	}
	most := int(time.Since(started)/(250*time.Millisecond)) + 2
	require.GreaterOrEqual(t, len(reports), 2)
	require.LessOrEqual(t, len(reports), most)
	require.Equal(t, uint64(1), reports[0].GetCallId())
	last := reports[len(reports)-1]
	require.Equal(t, uint32(100), last.GetPercent(), "it is limited to a valid percentage")
	require.Equal(t, "last\uFFFDword", last.GetNote())
	for _, r := range reports {
		require.LessOrEqual(t, len(r.GetNote()), 256)
	}
}

func TestProgressNeedsAStep(t *testing.T) {
	t.Parallel()
	handler.Progress(t.Context(), 50, "nobody hears it")
	var got []int
	ctx, cancel := context.WithCancel(handler.WithProgress(t.Context(), func(percent int, _ string) { got = append(got, percent) }))
	handler.Progress(ctx, 50, "")
	cancel()
	handler.Progress(ctx, 60, "too late")
	require.Equal(t, []int{50}, got)
}
