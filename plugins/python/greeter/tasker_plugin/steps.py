"""Runs steps: what a handler sees of a step, and the streams that bring them."""

import decimal
import json
import queue
import sys
import threading
import time
import traceback

from .v1 import plugin_pb2 as pb

MAX_RESULT_BYTES = 4 << 20
MAX_NOTE_BYTES = 256
PROGRESS_PACE = 0.25  # seconds between two reports of a step
CANCELLED = "CANCELLED"  # the code that hands a step back
HANDLER_CANCELLED = "HANDLER_CANCELLED"  # sent instead if it is the code of a handler's own failure


def loads(raw):
    """Reads JSON; numbers with a fraction keep their digits."""
    return json.loads(raw, parse_float=decimal.Decimal)


def dumps(value):
    """Writes JSON, including what loads has read, which json itself cannot write."""
    if isinstance(value, decimal.Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(json.dumps(str(k), ensure_ascii=False) + ":" + dumps(v) for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class Failure(Exception):
    """A failure that the handler has classified."""

    type, retryable = "", False

    def __init__(self, code, message, retry_after=0.0):
        super().__init__(message)
        self.code, self.retry_after = code, retry_after


class Permanent(Failure):
    """The step has failed permanently."""

    type = "PermanentError"


class Retryable(Failure):
    """The step may be tried again, after some seconds if given."""

    type, retryable = "RetryableError", True


class Cancelled(Exception):
    """The host has cancelled the step, or its timeout has passed."""


class Step:
    """One attempt of one step."""

    def __init__(self, message, stream):
        self.message = message
        self.context = loads(message.context or b"{}")
        self.config = loads(message.config or b"{}")
        self.dependencies = {d.step_name: loads(d.result or b"null") for d in message.dependencies}
        self.idempotency_key = message.idempotency_key
        self.attempt = message.attempt
        self.reason = ""
        self._stream = stream
        self._ended = threading.Event()
        self._told = 0.0
        self.deadline = time.monotonic() + message.timeout_ms / 1000 if message.timeout_ms else None

    def pause(self, seconds):
        """Sleeps, but raises Cancelled when the attempt is over."""
        if self.deadline is not None:
            seconds = min(seconds, max(0.0, self.deadline - time.monotonic()))
        self._ended.wait(seconds)
        self.check()

    def check(self):
        """Raises Cancelled when the attempt is over."""
        if self._ended.is_set():
            raise Cancelled(self.reason)
        if self.timed_out():
            raise Cancelled("timeout")

    def timed_out(self):
        return self.deadline is not None and time.monotonic() >= self.deadline

    def progress(self, percent, note=""):
        """Reports how far the step is. Reports that come too fast are dropped."""
        now = time.monotonic()
        if now - self._told < PROGRESS_PACE:
            return
        self._told = now
        note = note.encode("utf-8", "replace")[:MAX_NOTE_BYTES].decode("utf-8", "ignore")
        self._stream.put(pb.WorkResponse(progress=[pb.Progress(
            call_id=self.message.call_id, percent=min(100, max(0, int(percent))), note=note)]))

    def cancel(self, reason):
        self.reason = reason
        self._ended.set()


class Steps:
    """All steps of the process."""

    def __init__(self, handlers, max_in_flight):
        self.handlers = handlers
        self.places = threading.Semaphore(max_in_flight)
        self.draining = False
        self._changed = threading.Condition()
        self._running = 0
        self._streams = set()

    def in_flight(self):
        with self._changed:
            return self._running

    def drain(self, seconds):
        """Accepts no more steps; returns how many are left after the given time."""
        self.draining = True
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, timeout=seconds)
            return self._running

    def close(self):
        """Ends the streams; what still runs is cancelled."""
        with self._changed:
            streams = list(self._streams)
        for s in streams:
            s.close()

    def work(self, requests):
        """Serves one work stream: a generator of responses."""
        stream = Stream(self, requests)
        with self._changed:
            self._streams.add(stream)
        try:
            yield from stream.responses()
        finally:
            stream.abandon()
            with self._changed:
                self._streams.discard(stream)

    def count(self, change):
        with self._changed:
            self._running += change
            self._changed.notify_all()


class Stream:
    """One work stream. A thread receives, each step has a thread, and the
    thread of the call sends what they put into the queue."""

    def __init__(self, steps, requests):
        self.steps, self.requests = steps, requests
        self._queue = queue.Queue()
        self._lock = threading.Lock()
        self._open = {}  # steps without an outcome, by call
        self._ended = False  # the host sends no more steps

    def put(self, response):
        self._queue.put(response)

    def responses(self):
        threading.Thread(target=self._receive, daemon=True).start()
        while True:
            response = self._queue.get()
            if response is None:
                return
            yield response

    def close(self):
        self._queue.put(None)

    def abandon(self):
        with self._lock:
            left = list(self._open.values())
        for step in left:
            step.cancel("the connection to the host is lost")

    def _receive(self):
        try:
            for request in self.requests:
                for message in request.steps:
                    self._accept(message)
                for cancel in request.cancels:
                    with self._lock:
                        step = self._open.get(cancel.call_id)
                    if step is not None:
                        step.cancel(cancel.reason)
        except Exception:  # the connection broke: there is nobody to tell
            self.close()
            return
        with self._lock:
            self._ended = True
            done = not self._open
        if done:
            self.close()

    def _accept(self, message):
        handler = self.steps.handlers.get(message.handler)
        if handler is None:
            self._answer(message, failure("HandlerNotFound", "", f"the plugin does not serve a handler {message.handler!r}"))
        elif self.steps.draining:
            self._answer(message, failure("UnexpectedError", CANCELLED, "the plugin is shutting down", True))
        else:
            try:
                step = Step(message, self)
            except ValueError as e:
                self._answer(message, failure("ValidationError", "", f"the step is not JSON: {e}"))
                return
            with self._lock:
                self._open[message.call_id] = step
            self.steps.count(1)
            threading.Thread(target=self._run, args=(handler, step), daemon=True).start()

    def _run(self, handler, step):
        started = time.monotonic()
        try:
            with self.steps.places:
                step.check()
                outcome = succeed(handler(step))
        except Exception as e:
            outcome = fail(e, step)
        outcome.execution_us = min(int((time.monotonic() - started) * 1e6), 2**32 - 1)
        self._answer(step.message, outcome)
        self.steps.count(-1)

    def _answer(self, message, outcome):
        outcome.call_id = message.call_id
        self.put(pb.WorkResponse(outcomes=[outcome]))
        with self._lock:
            self._open.pop(message.call_id, None)
            done = self._ended and not self._open
        if done:
            self.close()


def succeed(value):
    result = dumps(value).encode()
    if len(result) > MAX_RESULT_BYTES:
        return failure("InvalidResult", "", f"the result has {len(result)} bytes, more than {MAX_RESULT_BYTES}")
    return pb.Outcome(result=result)


def fail(error, step):
    """Classifies what a handler raised."""
    if step.reason:  # cancelled: not a verdict of the handler
        return failure("UnexpectedError", CANCELLED, step.reason, True)
    if step.timed_out():
        return failure("TimeoutError", "", f"timed out after {step.message.timeout_ms} ms: {error}", True)
    if isinstance(error, Failure):
        code = HANDLER_CANCELLED if error.code == CANCELLED else error.code
        f = failure(error.type, code, str(error), error.retryable)
        f.failure.retry_after_ms = int(error.retry_after * 1000)
        return f
    print("".join(traceback.format_exception(error)), file=sys.stderr)
    return failure("UnexpectedError", "", f"{type(error).__name__}: {error}", True)


def failure(kind, code, message, retryable=False):
    clean = message.encode("utf-8", "replace")[:8192].decode("utf-8", "ignore").replace("\0", "\ufffd")
    return pb.Outcome(failure=pb.Failure(type=kind, code=code, message=clean, retryable=retryable))
