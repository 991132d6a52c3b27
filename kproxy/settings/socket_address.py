"""Where to listen, as flags and kube-proxy's configuration write it."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple


class SocketAddress(NamedTuple):
    """An address and a port. A wildcard of either family stands for both, as kube-proxy has it."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_socket_address(text: str) -> SocketAddress | None:
    """`0.0.0.0:10256` or `[::]:10256`; "" is off (None). ValueError."""
    if not text:
        return None
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*)):([0-9]+)", text)
    if not found or int(found[3]) > 65535:
        raise ValueError(f"{text!r} is not ADDRESS:PORT, with an IPv6 address in brackets")
    address = ip_address(found[1] if found[1] is not None else found[2])
    if (address.version == 6) != (found[1] is not None):
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, an IPv4 address does not")
    return SocketAddress(str(address), int(found[3]))
