"""The gRPC services: the contract's, and the two that go-plugin itself needs.

They are registered by hand, with only the generated messages, so no code
generator for gRPC is needed."""

import json
import threading

import grpc

from .v1 import plugin_pb2 as pb

PACKAGE = "tasker.plugin.v1"


class Plugin:
    """The service of every plugin, and the work stream of handlers."""

    def __init__(self, name, version, steps, configure, options_schema, max_in_flight):
        self.name, self.version, self.steps = name, version, steps
        self.configure, self.options_schema, self.max_in_flight = configure, options_schema, max_in_flight
        self._lock = threading.Lock()
        self._configured = False

    def describe(self, _request, _context):
        return pb.DescribeResponse(
            name=self.name, version=self.version, options_schema=self.options_schema, max_in_flight=self.max_in_flight,
            slots=[pb.Slot(kind="handler", name=n) for n in sorted(self.steps.handlers)])

    def configure_(self, request, context):
        with self._lock:
            if self._configured:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "already configured")
            try:
                options = json.loads(request.options or b"{}")
            except ValueError as e:
                return pb.ConfigureResponse(errors=[pb.FieldError(message=f"the options are not JSON: {e}")])
            if not isinstance(options, dict):
                return pb.ConfigureResponse(errors=[pb.FieldError(message="the options are not a JSON object")])
            errors = [pb.FieldError(path=p, message=m) for p, m in self.configure(options)]
            self._configured = not errors
            return pb.ConfigureResponse(errors=errors)

    def health(self, _request, _context):
        status = pb.HealthResponse.STATUS_DEGRADED if self.steps.draining else pb.HealthResponse.STATUS_HEALTHY
        return pb.HealthResponse(status=status, in_flight=self.steps.in_flight())

    def self_test(self, _request, _context):
        return pb.SelfTestResponse(ok=True, message="no self-test")

    def drain(self, request, _context):
        return pb.DrainResponse(in_flight=self.steps.drain(request.timeout_ms / 1000))

    def work(self, requests, context):
        if not self._configured:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not configured yet")
        yield from self.steps.work(requests)


def unary(function, request):
    return grpc.unary_unary_rpc_method_handler(
        function, request_deserializer=request.FromString, response_serializer=lambda m: m.SerializeToString())


def raw(function):
    """A call whose messages are handled as bytes: an empty message is b""."""
    return grpc.unary_unary_rpc_method_handler(function)


def all_of(plugin, stop):
    """Returns all services of the server."""

    def shutdown(_request, _context):
        stop.set()
        return b""

    def stdio(_request, context):
        # The host reads standard error from the pipe; this stream only has to stay open.
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait()
        return iter(())

    def serving(_request, _context):
        return b"\x08\x01"  # HealthCheckResponse{status: SERVING}

    return (
        grpc.method_handlers_generic_handler(PACKAGE + ".Plugin", {
            "Describe": unary(plugin.describe, pb.DescribeRequest),
            "Configure": unary(plugin.configure_, pb.ConfigureRequest),
            "Health": unary(plugin.health, pb.HealthRequest),
            "SelfTest": unary(plugin.self_test, pb.SelfTestRequest),
            "Drain": unary(plugin.drain, pb.DrainRequest),
        }),
        grpc.method_handlers_generic_handler(PACKAGE + ".Handler", {
            "Work": grpc.stream_stream_rpc_method_handler(
                plugin.work, request_deserializer=pb.WorkRequest.FromString,
                response_serializer=lambda m: m.SerializeToString()),
        }),
        grpc.method_handlers_generic_handler("plugin.GRPCController", {"Shutdown": raw(shutdown)}),
        grpc.method_handlers_generic_handler("plugin.GRPCStdio", {
            "StreamStdio": grpc.unary_stream_rpc_method_handler(stdio),
        }),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": raw(serving)}),
    )
