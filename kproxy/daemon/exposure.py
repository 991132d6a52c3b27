"""Where a daemon serves what."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.daemon.socket_address import SocketAddress


class Exposure(NamedTuple):
    """Addresses to listen on; None: nowhere."""

    healthz: SocketAddress | None
    metrics: SocketAddress | None
    by_endpoint: bool = False
    """Whether connections are counted by endpoint, too."""
