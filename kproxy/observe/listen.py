"""Where a daemon serves what."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.observe.core.health import MAX_SILENCE_SECONDS
from kproxy.settings.socket_address import SocketAddress


class ListenAddresses(NamedTuple):
    """Addresses to listen on (None: nowhere), and what is said there."""

    healthz: SocketAddress | None
    metrics: SocketAddress | None
    by_endpoint: bool = False
    """Whether connections are counted by endpoint, too."""
    max_silence: float = MAX_SILENCE_SECONDS
    """Seconds that a source may be silent before /healthz says so; 0: for ever."""
