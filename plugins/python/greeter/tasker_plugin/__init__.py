"""The minimum that a plugin in Python needs to serve a Tasker host.

serve() performs the handshake, speaks mutual TLS, and answers the host's calls;
docs/plugins-in-other-languages.md explains each step of it. Handlers are
functions of a Step; they return what can be written as JSON, or raise.
"""

from .process import serve
from .steps import Cancelled, Permanent, Retryable, Step

__all__ = ["serve", "Step", "Permanent", "Retryable", "Cancelled"]
