// Package plugintest tests handlers and plugins in process, without a host, a database or a
// second process. Between the test and the handler runs the code that runs in production, over
// a gRPC connection in memory.
//
//	func TestCharge(t *testing.T) {
//		got := plugintest.Run(t, handler.Func(charge), plugintest.Step{
//			Context: map[string]any{"amount": 12},
//		})
//		require.Nil(t, got.Failure)
//		require.JSONEq(t, `{"charged": 12}`, string(got.Result))
//	}
//
//	func TestPlugin(t *testing.T) {
//		plugintest.Conformance(t, plugin())
//	}
//
// It needs nothing besides the testing package, and everything it starts ends with the test.
package plugintest
