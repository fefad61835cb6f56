package client

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func FuzzEvents(f *testing.F) {
	f.Add("retry: 1000\n\nid: a\nevent: snapshot\ndata: {}\n\n")
	f.Add(": keep-alive\n\ndata:x\ndata: y\n\n")
	f.Add("data\r\n\r\n:\n\n\x00")
	f.Fuzz(func(t *testing.T, stream string) {
		lines := bufio.NewScanner(strings.NewReader(stream))
		lines.Buffer(nil, maxEventBytes)
		for n := 0; ; n++ {
			e, ok := nextEvent(lines, func() {})
			if !ok {
				return
			}
			require.NotEmpty(t, e.Data+e.ID)
			require.LessOrEqual(t, n, strings.Count(stream, "\n"))
		}
	})
}
