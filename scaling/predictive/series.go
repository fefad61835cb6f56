package predictive

import (
	"time"

	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// series adds up samples in buckets of equal length.
type series struct {
	bucket  time.Duration
	seen    time.Time     // the end of the latest sample that was added
	index   int64         // of the bucket that is being filled, counted from 1970; 0: none yet
	sum     float64       // arrivals in it
	covered time.Duration // how much of it was measured
}

// closed is a bucket that is full, or gets no more samples.
type closed struct {
	rate  float64 // arrivals a second
	known bool    // enough of it was measured
}

// add adds the samples that are new and returns the buckets that ended, in
// order, including unmeasured ones in between. A gap longer than most buckets
// begins a new series: then nothing is returned, and anew is true.
func (s *series) add(samples []scaler.Sample, most int) (ended []closed, anew bool) {
	for _, sample := range samples {
		if !sample.At.After(s.seen) {
			continue
		}
		begin := sample.At.Add(-sample.Span)
		if begin.Before(s.seen) { // the overlap was counted before
			begin = s.seen
		}
		if first := s.at(begin); s.index != 0 && first-s.index > int64(most) {
			*s, ended, anew = series{bucket: s.bucket}, nil, true
		}
		perSecond := sample.Rate(sample.Arrivals)
		for begin.Before(sample.At) {
			index := s.at(begin)
			if s.index == 0 {
				s.index = index
			}
			for s.index < index {
				ended = append(ended, s.close())
			}
			end := time.Unix(0, (index+1)*int64(s.bucket))
			if end.After(sample.At) {
				end = sample.At
			}
			s.sum += perSecond * end.Sub(begin).Seconds()
			s.covered += end.Sub(begin)
			begin = end
		}
		s.seen = sample.At
	}
	return ended, anew
}

func (s *series) at(t time.Time) int64 { return t.UnixNano() / int64(s.bucket) }

func (s *series) close() closed {
	c := closed{known: s.covered >= s.bucket/2}
	if c.known {
		c.rate = s.sum / s.covered.Seconds()
	}
	s.index++
	s.sum, s.covered = 0, 0
	return c
}
