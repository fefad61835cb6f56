package fulfillment_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tasker-systems/tasker-host/plugins/examples/fulfillment"
)

func TestParseMoney(t *testing.T) {
	t.Parallel()
	for number, want := range map[string]string{
		"0":             "0.00",
		"0.1":           "0.10",
		"29.99":         "29.99",
		"29.990000":     "29.99",
		"2.999e1":       "29.99",
		"2999E-2":       "29.99",
		"-0.05":         "-0.05",
		"-12.5":         "-12.50",
		"1000000000.00": "1000000000.00",
	} {
		got, err := fulfillment.ParseMoney(number)
		require.NoError(t, err, number)
		require.Equal(t, want, got.String(), number)
	}
	for number, message := range map[string]string{
		"":                              "not an amount of money",
		"abc":                           "not an amount of money",
		"1/2":                           "not an amount of money",
		"0x10":                          "not an amount of money",
		"1_0":                           "not an amount of money",
		"1e21":                          "not an amount of money",
		"1e-999999999":                  "not an amount of money",
		"0." + strings.Repeat("0", 100): "not an amount of money",
		"29.999":                        "more than two decimals",
		"1e-3":                          "more than two decimals",
		"1000000000.01":                 "beyond ±1000000000.00",
		"-1000000000.01":                "beyond ±1000000000.00",
	} {
		_, err := fulfillment.ParseMoney(number)
		require.EqualError(t, err, message, number)
	}
}

func TestMoneyKeepsEveryCent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		cents := rapid.Int64Range(-100_000_000_000, 100_000_000_000).Draw(t, "cents")
		raw, err := json.Marshal(fulfillment.Money(cents))
		require.NoError(t, err)
		exact, ok := new(big.Rat).SetString(string(raw))
		require.True(t, ok)
		require.Equal(t, 0, exact.Cmp(big.NewRat(cents, 100)), "%s", raw)
		var back fulfillment.Money
		require.NoError(t, json.Unmarshal(raw, &back))
		require.Equal(t, fulfillment.Money(cents), back)
	})
}

func TestPerMilleRoundsToCents(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ amount, want string }{
		{"209.97", "6.09"},
		{"0", "0.00"},
		{"0.17", "0.00"},
		{"0.18", "0.01"},
		{"5.00", "0.15"}, // 0.145, half a cent
		{"-5.00", "-0.15"},
		{"50000.00", "1450.00"},
	} {
		amount, err := fulfillment.ParseMoney(tt.amount)
		require.NoError(t, err)
		require.Equal(t, tt.want, amount.PerMille(29).String(), tt.amount)
	}
}

func FuzzParseMoney(f *testing.F) {
	for _, seed := range []string{"29.99", "-0", "1e20", "1e-20", "1e+5", "0x1p4", "9e", "١"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, number string) {
		money, err := fulfillment.ParseMoney(number)
		if err != nil {
			return
		}
		again, err := fulfillment.ParseMoney(fmt.Sprint(money))
		require.NoError(t, err)
		require.Equal(t, money, again)
	})
}
