"""What a running kproxy knows, as one value: what commands show when no manifests are named.

It travels as msgpack behind a line that says which version wrote it. Nothing but the structs
of the model says what the bytes mean, so that only a command of the same version may read them.
Pure; the socket is in channel.py.
"""

from __future__ import annotations

from functools import cache
from ipaddress import ip_network
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from kproxy import __version__
from kproxy.model import Address, Frontend, NamespacedName, Network, Node, Protocol, format_socket
from kproxy.problems import KproxyError, Problem
from kproxy.sources.core.inventory import Inventory

_GREETING = b"kproxy "


class Failure(NamedTuple):
    """What could not be done, and when it last could not."""

    time: str
    """RFC 3339."""
    object: str
    """As a Problem names it, `Service default/kubia`; "" if it is about all."""
    message: str


class HeldFrontend(NamedTuple):
    """One side of a frontend that a table contains, with endpoints of which kproxy knows nothing else."""

    service: NamespacedName
    address: Address
    protocol: Protocol
    port: int
    from_outside: bool
    """For clients that are neither pods nor this node, where these have endpoints of their own."""
    endpoints: tuple[tuple[Address, int], ...]

    def __str__(self) -> str:
        return f"{format_socket(self.address, self.port)}/{self.protocol}"


class Snapshot(Struct, frozen=True):
    """Everything that can be shown, of one moment."""

    inventory: Inventory
    frontends: list[Frontend]
    """As this node shows them."""
    problems: list[Problem]
    """Of the input, and of what was made of it."""
    node: Node
    last_errors: tuple[Failure, ...] = ()
    """What is programmed may be older than the rest because of these."""
    warnings: tuple[Problem, ...] = ()
    """What may not be as it was meant, and leaves nothing out."""
    held_frontends: list[HeldFrontend] = []
    """Of services that could not be read since kproxy started: what the tables contain beyond `frontends`."""


def _plain(value: Any) -> str:
    """A network as text; msgspec knows all else."""
    return str(value)


def _rich(_: type, text: str) -> Network:
    return ip_network(text)


@cache
def _decoder() -> msgspec.msgpack.Decoder[Snapshot]:
    return msgspec.msgpack.Decoder(Snapshot, dec_hook=_rich)


def encode(snapshot: Snapshot) -> bytes:
    """The whole message: `kproxy VERSION LENGTH`, a line break, and so many bytes."""
    body = msgspec.msgpack.encode(snapshot, enc_hook=_plain)
    return b"%s%s %d\n%s" % (_GREETING, __version__.encode(), len(body), body)


def decode(message: bytes | bytearray) -> Snapshot:
    """Take a message apart; a KproxyError if it was cut short, or is another version's."""
    end = message.find(b"\n")
    words = bytes(message[: max(end, 0)]).split(b" ")
    if end < 0 or len(words) != 3 or not message.startswith(_GREETING):
        raise KproxyError("kproxy run closed the connection before it said anything.", "See what it logs.")
    version = words[1].decode(errors="replace")
    if version != __version__:
        raise KproxyError(
            f"kproxy run is version {version}, this command {__version__}.", "Restart kproxy run."
        )
    body = memoryview(message)[end + 1 :]
    if len(body) != int(words[2]):
        raise KproxyError(f"kproxy run sent {len(body)} of {int(words[2])} bytes.", "Try again.")
    try:
        return _decoder().decode(body)
    except msgspec.DecodeError as error:
        raise KproxyError(
            f"kproxy run does not mean by version {version} what this command does ({error}).",
            "Restart kproxy run.",
        ) from None
