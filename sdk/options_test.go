package sdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tasker-systems/tasker-host/sdk"
	"github.com/tasker-systems/tasker-host/sdk/handler"
	"github.com/tasker-systems/tasker-host/sdk/plugintest"
	pluginv1 "github.com/tasker-systems/tasker-host/sdk/proto/tasker/plugin/v1"
)

type retry struct {
	Times uint8        `json:"times"`
	Wait  sdk.Duration `json:"wait" doc:"between two tries"`
}

type common struct {
	Region string `json:"region"`
}

type billing struct {
	common
	Currency string            `json:"currency" doc:"ISO 4217 code"`
	Limit    json.Number       `json:"limit,omitempty"`
	Ratio    float64           `json:"ratio"`
	Retry    retry             `json:"retry"`
	Accounts []string          `json:"accounts"`
	Labels   map[string]string `json:"labels"`
	Since    *time.Time        `json:"since"`
	Extra    any               `json:"extra"`
	Dry      bool              `json:"dry"`
	hidden   int
}

var defaults = billing{Currency: "EUR", Retry: retry{Times: 3, Wait: sdk.Duration(time.Second)}, hidden: 1}

func configured(t *testing.T, options string, apply func(context.Context, billing) error) []*pluginv1.FieldError {
	t.Helper()
	part := sdk.Handlers("p", "1.0.0", map[string]handler.Handler{"h": handler.Func(echo)}, sdk.WithOptions(defaults, apply))
	client := plugintest.Connect(t, part)
	answer, err := client.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{Options: []byte(options)})
	require.NoError(t, err)
	return answer.GetErrors()
}

func TestOptions(t *testing.T) {
	t.Parallel()
	var got billing
	apply := func(_ context.Context, b billing) error {
		got = b
		return nil
	}
	require.Empty(t, configured(t, "", apply))
	require.Equal(t, defaults, got)

	require.Empty(t, configured(t, `{
		"region": "north", "currency": "SEK", "limit": 12345678901234567890.5, "ratio": 2, "retry": {"wait": "1m"},
		"accounts": ["a"], "labels": {"any/key": "x"}, "since": "2026-01-02T03:04:05Z", "extra": {"free": [1]}, "dry": true
	}`, apply))
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	require.Equal(t, billing{
		common: common{Region: "north"}, Currency: "SEK", Limit: "12345678901234567890.5", Ratio: 2,
		Retry: retry{Times: 3, Wait: sdk.Duration(time.Minute)}, Accounts: []string{"a"},
		Labels: map[string]string{"any/key": "x"}, Since: &since,
		Extra: map[string]any{"free": []any{json.Number("1")}}, Dry: true, hidden: 1,
	}, got)
}

func TestOptionsRefused(t *testing.T) {
	t.Parallel()
	apply := func(context.Context, billing) error { panic("options that are wrong must not get here") }
	for options, want := range map[string]string{
		`{`:                               `: the options are not JSON: unexpected EOF`,
		`[]`:                              `: want object, got array`,
		`{"curency": "EUR"}`:              `/curency: unknown option; known options: accounts, currency, dry, extra, labels, limit, ratio, region, retry, since`,
		`{"currency": 1, "retry": "x"}`:   `/currency: want string, got integer; /retry: want object, got string`,
		`{"retry": {"a/b~c": 1}}`:         `/retry/a~1b~0c: unknown option; known options: times, wait`,
		`{"accounts": ["a", 2]}`:          `/accounts/1: want string, got integer`,
		`{"labels": {"a": 1}}`:            `/labels/a: want string, got integer`,
		`{"retry": {"times": 1.5}}`:       `/retry/times: want integer, got number`,
		`{"retry": {"times": 256}}`:       `/retry/times: number 256 does not fit into uint8`,
		`{"retry": {"wait": "a moment"}}`: `: time: invalid duration "a moment"`,
		`{"dry": "yes"}`:                  `/dry: want boolean, got string`,
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, want, joined(configured(t, options, apply)))
		})
	}
}

func TestOptionsApplyErrors(t *testing.T) {
	t.Parallel()
	got := configured(t, "", func(context.Context, billing) error {
		return errors.Join(
			&sdk.OptionError{Path: "/region", Message: "is required"},
			errors.New("the bank does not answer"),
		)
	})
	require.Equal(t, "/region: is required; : the bank does not answer", joined(got))

	got = configured(t, "", func(context.Context, billing) error { panic("boom") })
	require.Contains(t, joined(got), "panic: boom")
}

func TestNoOptions(t *testing.T) {
	t.Parallel()
	client := plugintest.Connect(t, sdk.Handlers("p", "1.0.0", map[string]handler.Handler{"h": handler.Func(echo)}))
	answer, err := client.Plugin.Configure(t.Context(), &pluginv1.ConfigureRequest{Options: []byte(`{"a": 1, "b": 2}`)})
	require.NoError(t, err)
	require.Equal(t, "/a: unknown option; known options: none; /b: unknown option; known options: none", joined(answer.GetErrors()))
}

func TestOptionsSchema(t *testing.T) {
	t.Parallel()
	part := sdk.Handlers("p", "1.0.0", map[string]handler.Handler{"h": handler.Func(echo)},
		sdk.WithOptions(defaults, func(context.Context, billing) error { return nil }))
	d, err := plugintest.Connect(t, part).Plugin.Describe(t.Context(), &pluginv1.DescribeRequest{})
	require.NoError(t, err)
	require.JSONEq(t, `{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"type": "object", "additionalProperties": false,
		"properties": {
			"region":   {"type": "string", "default": ""},
			"currency": {"type": "string", "description": "ISO 4217 code", "default": "EUR"},
			"limit":    {"type": "number"},
			"ratio":    {"type": "number", "default": 0},
			"retry":    {"type": "object", "additionalProperties": false, "properties": {
				"times": {"type": "integer", "minimum": 0, "default": 3},
				"wait":  {"type": "string", "description": "between two tries", "default": "1s"}
			}},
			"accounts": {"type": "array", "items": {"type": "string"}},
			"labels":   {"type": "object", "additionalProperties": {"type": "string"}},
			"since":    {"type": "string", "format": "date-time"},
			"extra":    {},
			"dry":      {"type": "boolean", "default": false}
		}
	}`, d.GetOptionsSchema())
}

type node struct{ Next *node }

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := map[string]handler.Handler{"h": handler.Func(echo)}
	none := func(context.Context, struct{}) error { return nil }
	for want, parts := range map[string][]sdk.Part{
		"no parts given": {},
		"no handlers, algorithms or health services given": {sdk.Handlers("p", "1.0.0", nil)},
		"plugin name \"P\"":        {sdk.Handlers("P", "1.0.0", good)},
		"plugin version \"1\"":     {sdk.Handlers("p", "1", good)},
		"handler name \"No Good\"": {sdk.Handlers("p", "1.0.0", map[string]handler.Handler{"No Good": handler.Func(echo)})},
		"handler h is nil":         {sdk.Handlers("p", "1.0.0", map[string]handler.Handler{"h": nil})},
		"handler h is given twice": {sdk.Handlers("p", "1.0.0", good), sdk.Handlers("p", "1.0.0", good)},
		"parts disagree":           {sdk.Handlers("p", "1.0.0", good), sdk.Handlers("q", "1.0.0", good)},
		"max in flight is 0":       {sdk.Handlers("p", "1.0.0", good, sdk.MaxInFlight(0))},
		"options are declared twice": {
			sdk.Handlers("p", "1.0.0", good, sdk.WithOptions(struct{}{}, none), sdk.WithOptions(struct{}{}, none)),
		},
		"want a struct": {
			sdk.Handlers("p", "1.0.0", good, sdk.WithOptions(3, func(context.Context, int) error { return nil })),
		},
		"use sdk.Duration": {sdk.Handlers("p", "1.0.0", good,
			sdk.WithOptions(struct{ Wait time.Duration }{}, func(context.Context, struct{ Wait time.Duration }) error { return nil }))},
		"contains itself": {sdk.Handlers("p", "1.0.0", good,
			sdk.WithOptions(node{}, func(context.Context, node) error { return nil }))},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			_, err := sdk.New(parts...)
			require.ErrorContains(t, err, want)
		})
	}
}

func joined(problems []*pluginv1.FieldError) string {
	texts := make([]string, 0, len(problems))
	for _, p := range problems {
		texts = append(texts, p.GetPath()+": "+p.GetMessage())
	}
	return strings.Join(texts, "; ")
}
