package sim

import "math"

// tally counts latencies in classes that are two percent wide, so that a million
// of them cost hardly any memory.
type tally struct {
	classes [1200]int
	total   int
}

const (
	shortest = 1e-4 // seconds; anything shorter counts as this
	growth   = 1.02
)

// classesPerE is the number of classes per factor of e.
const classesPerE = 50.49834 // 1 / ln(growth)

func (t *tally) add(latency float64) {
	class := 0
	if latency > shortest {
		class = min(int(math.Log(latency/shortest)*classesPerE), len(t.classes)-1)
	}
	t.classes[class]++
	t.total++
}

// at returns a percentile: the upper end of its class.
func (t *tally) at(q float64) float64 {
	if t.total == 0 {
		return 0
	}
	rank := max(1, int(math.Ceil(q*float64(t.total))))
	for class, n := range t.classes {
		if rank -= n; rank <= 0 {
			return shortest * math.Pow(growth, float64(class+1))
		}
	}
	return math.Inf(1)
}
