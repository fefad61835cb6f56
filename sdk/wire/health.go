package wire

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/tasker-systems/tasker-host/sdk/health"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

var statuses = map[health.Status]pluginv1.CheckResult_Status{
	health.Healthy:   pluginv1.CheckResult_STATUS_HEALTHY,
	health.Degraded:  pluginv1.CheckResult_STATUS_DEGRADED,
	health.Unhealthy: pluginv1.CheckResult_STATUS_UNHEALTHY,
	health.Unknown:   pluginv1.CheckResult_STATUS_UNKNOWN,
}

// Unusable begins the message of a result whose status is unknown because the
// original result could not be used.
const Unusable = "the result is not usable: "

// EncodeCheck returns the message of a check's result, or what is wrong with
// the result.
func EncodeCheck(c health.Check) (*pluginv1.CheckResult, error) {
	if err := c.Verify(); err != nil {
		return nil, err
	}
	m := &pluginv1.CheckResult{Name: c.Name, Status: statuses[c.Status], Message: c.Message}
	if len(c.Data) == 0 {
		return m, nil
	}
	data, err := json.Marshal(c.Data)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the data is not JSON: %w", err)
	case len(data) > health.MaxDataBytes:
		return nil, fmt.Errorf("the data has %d bytes: want at most %d", len(data), health.MaxDataBytes)
	}
	m.Data = data
	return m, nil
}

// DecodeCheck returns the result in a message, or what is wrong with it. It may
// come from any plugin, so everything in it is checked.
func DecodeCheck(m *pluginv1.CheckResult) (health.Check, error) {
	c := health.Check{Name: m.GetName(), Message: m.GetMessage()}
	for status, number := range statuses {
		if number == m.GetStatus() {
			c.Status = status
		}
	}
	if c.Status == "" {
		return c, fmt.Errorf("check %.40q: the status is %s: want healthy, degraded, unhealthy or unknown", c.Name, m.GetStatus())
	}
	if err := c.Verify(); err != nil {
		return c, fmt.Errorf("check %.40q: %w", c.Name, err)
	}
	switch data := m.GetData(); {
	case len(data) == 0:
		return c, nil
	case len(data) > health.MaxDataBytes:
		return c, fmt.Errorf("check %s: the data has %d bytes: want at most %d", c.Name, len(data), health.MaxDataBytes)
	}
	d := json.NewDecoder(bytes.NewReader(m.GetData()))
	d.UseNumber()
	if err := d.Decode(&c.Data); err != nil {
		return c, fmt.Errorf("check %s: the data is not a JSON object: %w", c.Name, err)
	}
	return c, nil
}

// EncodeEvent returns the message of an event.
func EncodeEvent(e health.Event) *pluginv1.HealthEvent {
	return &pluginv1.HealthEvent{
		Id: e.ID, Kind: string(e.Kind), Severity: string(e.Severity), Subject: e.Subject, From: e.From, To: e.To,
		TimeUs: unixMicros(e.Time), Message: e.Message, Host: e.Host, State: e.State, Labels: e.Labels,
	}
}

// DecodeEvent is the reverse of [EncodeEvent].
func DecodeEvent(m *pluginv1.HealthEvent) health.Event {
	return health.Event{
		ID: m.GetId(), Kind: health.Kind(m.GetKind()), Severity: health.Severity(m.GetSeverity()), Subject: m.GetSubject(),
		From: m.GetFrom(), To: m.GetTo(), Time: fromUnixMicros(m.GetTimeUs()), Message: m.GetMessage(),
		Host: m.GetHost(), State: m.GetState(), Labels: m.GetLabels(),
	}
}
