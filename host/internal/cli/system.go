package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tasker-systems/tasker-host/host/internal/readmodel"
)

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Find what is wrong and say how to fix it", Args: arguments(0, 0, ""),
		Long: "Check the configuration, the database, the plugins and the host. The host need not be running. Exits with 1 if a check fails.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := a.diagnose(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(report)
			} else {
				a.showReport(report)
			}
			if err == nil && report.Status == readmodel.DoctorFail {
				err = errShown
			}
			return err
		},
	}
}

// diagnose joins what can be checked from here with what a running host reports.
func (a *app) diagnose(ctx context.Context) (readmodel.DoctorReport, error) {
	report := readmodel.NewDoctorReport()
	if a.rt.Doctor != nil {
		options, err := a.configOptions()
		if err != nil {
			return report, err
		}
		report = a.rt.Doctor(ctx, options)
	}
	c, err := a.connect()
	if err != nil {
		if _, ok := errors.AsType[*usageError](err); ok {
			return report, err
		}
		report.Add(readmodel.DoctorCheck{
			Name: "host", Status: readmodel.DoctorFail, Message: err.Error(), Fix: "correct the configuration, or name the socket with --socket",
		})
		return report, nil
	}
	defer c.Close()
	online, err := c.Doctor(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		report.Add(readmodel.DoctorCheck{Name: "host", Status: readmodel.DoctorWarn, Message: err.Error(), Fix: "start a host with 'tasker up'"})
		return report, nil
	}
	report.Add(readmodel.DoctorCheck{Name: "host", Status: readmodel.DoctorOK, Message: "a host answers"})
	report.Add(online.Checks...)
	return report, nil
}

func (a *app) showReport(r readmodel.DoctorReport) {
	var t table
	for _, c := range r.Checks {
		t.add(stateCell(string(c.Status)), text(c.Name), text(c.Message))
		if c.Fix != "" {
			t.add(cell{}, cell{}, text("fix: "+c.Fix))
		}
	}
	a.printTable(&t)
}
