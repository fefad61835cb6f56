"""The process: handshake, TLS, shutdown."""

import concurrent.futures
import os
import signal
import sys
import tempfile
import threading

import grpc

from . import byhand, services
from .steps import Steps

COOKIE_KEY = "TASKER_PLUGIN_COOKIE"
COOKIE_VALUE = "3f5b8a1e-7d0c-4c55-9c62-7a1f0e6d9b24"
CORE_PROTOCOL = 1  # go-plugin's own
PROTOCOL = 1  # of sdk/proto/tasker/plugin/v1
MAX_MESSAGE_BYTES = (8 << 20) + (64 << 10)
DRAIN_SECONDS = 10


def serve(name, version, handlers, configure, options_schema="", max_in_flight=16):
    """Serves the handlers until the host ends it, SIGTERM, or the host's death.

    Started by a person, it prints what the plugin is: see byhand. Returns the exit
    code.
    """
    steps = Steps(handlers, max_in_flight)
    plugin = services.Plugin(name, version, steps, configure, options_schema, max_in_flight)
    if os.environ.get(COOKIE_KEY) != COOKIE_VALUE:
        return byhand.run(plugin.describe(None, None), sys.argv[0], sys.argv[1:])
    if str(PROTOCOL) not in os.environ.get("PLUGIN_PROTOCOL_VERSIONS", "").split(","):
        print(f"the host does not speak version {PROTOCOL} of the contract", file=sys.stderr)
        return 1

    # One stray line on standard output would break the handshake: save the real
    # one, and make file descriptor 1 standard error from here on.
    handshake = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's: the host decides
    parent = os.getppid()

    # A call occupies a thread while it runs, and a stream while it is open:
    # the host's work streams, the logging stream, and the short calls.
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(max_workers=16),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ],
    )
    server.add_generic_rpc_handlers(services.all_of(plugin, stop))

    directory = tempfile.mkdtemp(prefix="plugin-", dir=os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or None)
    socket = os.path.join(directory, "socket")
    certificate = ""
    try:
        client = os.environ.get("PLUGIN_CLIENT_CERT", "")
        if client:
            from . import tls  # needs the openssl command

            key, chain, certificate = tls.new_certificate(directory)
            credentials = grpc.ssl_server_credentials(
                [(key, chain)], root_certificates=client.encode(), require_client_auth=True)
            server.add_secure_port("unix:" + socket, credentials)
        else:
            server.add_insecure_port("unix:" + socket)
        server.start()

        handshake.write(f"{CORE_PROTOCOL}|{PROTOCOL}|unix|{socket}|grpc|{certificate}\n")
        handshake.close()

        while not stop.wait(0.5):
            if os.getppid() != parent:  # the host has died
                break
        steps.drain(0 if os.getppid() != parent else DRAIN_SECONDS)
        steps.close()
        server.stop(1).wait()
        return 0
    finally:
        for file in os.listdir(directory):
            os.unlink(os.path.join(directory, file))
        os.rmdir(directory)
