package sdk

import (
	"io"
	"log/slog"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// defaultLogger writes what go-plugin expects on a plugin's stderr: hclog lines
// in JSON.
func defaultLogger(w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: w, JSONFormat: true})
}

// adoptLoggers makes the loggers of the process write lines that the host
// understands: hclog's, slog's and, through slog, the one of package log.
func adoptLoggers(l hclog.Logger, w io.Writer) {
	hclog.SetDefault(l)
	slog.SetDefault(slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			switch a.Key {
			case slog.TimeKey:
				a = slog.String("@timestamp", a.Value.Time().Format(hclog.TimeFormatJSON))
			case slog.MessageKey:
				a.Key = "@message"
			case slog.LevelKey:
				a = slog.String("@level", strings.ToLower(a.Value.String()))
			}
			return a
		},
	})))
}
