"""The least that a plugin in Python needs to be served to a Tasker host.

serve() makes the handshake, speaks mutual TLS, and answers the host's calls;
docs/plugins-in-other-languages.md explains each step of it. Handlers are
functions of a Step; they return what json can write, or raise.
"""

from .process import serve
from .steps import Cancelled, Permanent, Retryable, Step

__all__ = ["serve", "Step", "Permanent", "Retryable", "Cancelled"]
