// Package builtin knows the algorithms of this module by name, and makes them from options as
// given in a configuration or on a command line.
package builtin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/tasker-systems/tasker-host/scaling"
	"github.com/tasker-systems/tasker-host/scaling/composite"
	"github.com/tasker-systems/tasker-host/scaling/cost"
	"github.com/tasker-systems/tasker-host/scaling/latency"
	"github.com/tasker-systems/tasker-host/scaling/predictive"
	"github.com/tasker-systems/tasker-host/scaling/rate"
	"github.com/tasker-systems/tasker-host/scaling/target"
	"github.com/tasker-systems/tasker-host/scaling/threshold"
	"github.com/tasker-systems/tasker-host/sdk/scaler"
)

// Algorithm is one of the algorithms.
type Algorithm struct {
	Name    string
	Summary string
	build   func(options []byte) (scaler.New, error)
}

// Composite holds the options of the algorithm composite.
type Composite struct {
	Mode string   `json:"mode" doc:"max, min or first"`
	Of   []Member `json:"of" doc:"the algorithms combined, in order"`
}

// Member is one of the algorithms that composite combines.
type Member struct {
	Algorithm string          `json:"algorithm" doc:"its name"`
	Options   json.RawMessage `json:"options" doc:"its options"`
}

// All lists the algorithms, simplest first.
func All() []Algorithm {
	return []Algorithm{
		{"threshold", "rules with fixed thresholds for utilization, queue depth and failures", with(threshold.Defaults(), threshold.New)},
		{"target", "keeps a measure at a value, with hysteresis", with(target.Defaults(), target.New)},
		{"rate", "as many executors as the arriving work keeps busy", with(rate.Defaults(), rate.New)},
		{"latency", "as many executors as it takes for work not to wait too long, by Little's law", with(latency.Defaults(), latency.New)},
		{"cost", "the cheapest size, including the price of late work, by Erlang's formula", with(cost.Defaults(), cost.New)},
		{"predictive", "as many executors as the expected load needs, by Holt and Winters", with(predictive.Defaults(), predictive.New)},
		{"composite", "the largest, the smallest or the first advice of other algorithms", newComposite},
	}
}

// New makes an algorithm by its name. The options are a JSON object; those that are missing
// in it have the algorithm's defaults.
func New(name string, options []byte) (scaler.New, error) {
	var names []string
	for _, a := range All() {
		if a.Name == name {
			made, err := a.build(options)
			if err != nil {
				return nil, fmt.Errorf("options of algorithm %s: %w", name, err)
			}
			return made, nil
		}
		names = append(names, a.Name)
	}
	return nil, fmt.Errorf("there is no algorithm %q; there are %s", name, strings.Join(names, ", "))
}

// with turns a constructor from options into one from JSON.
func with[T any](defaults T, build func(T) (scaler.New, error)) func([]byte) (scaler.New, error) {
	return func(raw []byte) (scaler.New, error) {
		o := defaults
		if err := decode(raw, &o); err != nil {
			return nil, err
		}
		return build(o)
	}
}

func decode(raw []byte, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("read options: there is something after the JSON object")
	}
	return nil
}

func newComposite(raw []byte) (scaler.New, error) {
	o := Composite{Mode: composite.Max}
	if err := decode(raw, &o); err != nil {
		return nil, err
	}
	var members []composite.Member
	for i, m := range o.Of {
		path := fmt.Sprintf("/of/%d", i)
		if m.Algorithm == "composite" {
			return nil, &scaling.OptionError{Path: path, Message: "composite cannot combine itself"}
		}
		made, err := New(m.Algorithm, m.Options)
		if err != nil {
			return nil, &scaling.OptionError{Path: path, Message: err.Error()}
		}
		members = append(members, composite.Member{Name: m.Algorithm, New: made})
	}
	return composite.New(o.Mode, members...)
}
