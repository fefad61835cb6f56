package predictive

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

var epoch = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// clock feeds an algorithm ten-second samples of a load with a season of twenty
// minutes: hills of up to 10 a second, each piece one second of work.
type clock struct {
	at      time.Duration
	samples []scaler.Sample
}

func load(at time.Duration) float64 {
	return 5 - 5*math.Cos(2*math.Pi*at.Minutes()/20)
}

func (c *clock) next() scaler.Observation {
	c.at += 10 * time.Second
	rate := load(c.at - 5*time.Second)
	c.samples = append(c.samples, scaler.Sample{
		At: epoch.Add(c.at), Span: 10 * time.Second, Size: 20,
		Arrivals: int64(math.Round(10 * rate)), Completions: int64(math.Round(10 * rate)), Utilization: rate / 20,
	})
	if len(c.samples) > 30 {
		c.samples = c.samples[1:]
	}
	return scaler.Observation{Pool: "p", Now: epoch.Add(c.at), Current: 20, Target: 20, Min: 1, Max: 50, Samples: c.samples}
}

func made(t *testing.T, change func(*Options)) *predictive {
	t.Helper()
	o := Defaults()
	o.Lead, o.MaxSeason, o.Window = scaling.Duration(3*time.Minute), scaling.Duration(time.Hour), scaling.Duration(10*time.Second)
	if change != nil {
		change(&o)
	}
	build, err := New(o)
	require.NoError(t, err)
	return build().(*predictive)
}

func decide(t *testing.T, p *predictive, o scaler.Observation) scaler.Decision {
	t.Helper()
	d, err := p.Decide(t.Context(), o)
	require.NoError(t, err)
	return d
}

func TestItFindsTheSeasonAndIsAheadOfIt(t *testing.T) {
	t.Parallel()
	p, c := made(t, nil), &clock{}
	var d scaler.Decision
	for c.at < 2*time.Hour {
		d = decide(t, p, c.next())
	}
	require.Len(t, p.model.Seasonal, 20)
	require.InDelta(t, 1, d.Confidence, 0)
	// Two minutes into the season, with the load at 0.5, it provides for the 3.9
	// that arrive within three minutes and the rest of a bucket.
	for c.at < 2*time.Hour+2*time.Minute {
		d = decide(t, p, c.next())
	}
	needed := scaling.Ceil(load(5*time.Minute) / 0.75)
	require.GreaterOrEqual(t, d.Target, needed-1, d.Reason)
	require.LessOrEqual(t, d.Target, needed+4, d.Reason)
	require.Contains(t, d.Reason, "season 20m0s")
}

func TestWhatItLearnedOutlivesASwap(t *testing.T) {
	t.Parallel()
	p, c := made(t, nil), &clock{}
	for c.at < 90*time.Minute {
		decide(t, p, c.next())
	}
	snapshot, err := p.Snapshot(t.Context())
	require.NoError(t, err)
	require.Less(t, len(snapshot), scaler.MaxSnapshotBytes/8)
	q := made(t, nil)
	require.NoError(t, q.Restore(t.Context(), snapshot))
	for range 200 {
		o := c.next()
		require.Equal(t, decide(t, p, o), decide(t, q, o))
	}

	other := made(t, func(o *Options) { o.Season = scaling.Duration(10 * time.Minute) })
	require.NoError(t, other.Restore(t.Context(), snapshot))
	require.Len(t, other.model.Seasonal, 10, "the history makes a model with the new season")

	for name, broken := range map[string]string{
		"no JSON":       `{`,
		"other version": `{"version":9,"bucket":"1m0s"}`,
		"other buckets": `{"version":1,"bucket":"5m0s"}`,
		"negative rate": `{"version":1,"bucket":"1m0s","history":[-1]}`,
		"broken model":  `{"version":1,"bucket":"1m0s","model":{"kind":"additive","seasonal":[]}}`,
	} {
		fresh := made(t, nil)
		require.Error(t, fresh.Restore(t.Context(), []byte(broken)), name)
		require.Empty(t, fresh.history, name)
	}
	require.NoError(t, made(t, nil).Restore(t.Context(), nil))
}

// A gap in the measurements counts neither as zero nor as an end.
func TestHoles(t *testing.T) {
	t.Parallel()
	p, c := made(t, nil), &clock{}
	for c.at < 80*time.Minute {
		decide(t, p, c.next())
	}
	before := len(p.history)
	c.at, c.samples = c.at+10*time.Minute, nil
	decide(t, p, c.next())
	require.Len(t, p.history, before+11) // the current one, and ten
	for i, rate := range p.history[before:] {
		require.InDelta(t, load(time.Duration(79+i)*time.Minute+30*time.Second), rate, 1.5, "minute %d of the hole", i)
	}
	c.at, c.samples = c.at+2*time.Hour, nil
	decide(t, p, c.next())
	require.Empty(t, p.history, "after such a long gap it starts again")
	require.Nil(t, p.model)
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	s := series{bucket: time.Minute}
	sample := func(end, span time.Duration, arrivals int64) scaler.Sample {
		return scaler.Sample{At: epoch.Add(end), Span: span, Arrivals: arrivals}
	}
	// A sample that spans several buckets goes to each in proportion; what
	// overlaps counts once.
	ended, anew := s.add([]scaler.Sample{sample(150*time.Second, 150*time.Second, 300)}, 100)
	require.False(t, anew)
	require.Equal(t, []closed{{2, true}, {2, true}}, ended)
	ended, _ = s.add([]scaler.Sample{sample(150*time.Second, 150*time.Second, 300), sample(180*time.Second, 60*time.Second, 240)}, 100)
	require.Empty(t, ended)
	ended, _ = s.add([]scaler.Sample{sample(190*time.Second, 10*time.Second, 0)}, 100)
	require.Equal(t, []closed{{3, true}}, ended)
	ended, _ = s.add([]scaler.Sample{sample(370*time.Second, 5*time.Second, 5)}, 100)
	require.Equal(t, []closed{{0, false}, {0, false}, {0, false}}, ended, "ten seconds are not enough to judge a minute by")
}
