"""The snapshot: everything that a running kproxy knows at one moment, as commands show it.

It is sent as msgpack, after a line with the version of the sender. The structs of the model define the format
of the bytes. So only a command of the same version can read them. Pure. The socket is in control/channel.py.
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
from kproxy.table.skeleton import Options

_GREETING = b"kproxy "


class Failure(NamedTuple):
    """An error, and its time."""

    time: str
    """RFC 3339."""
    object: str
    """The object as in a Problem, `Service default/kubia`; "" if the error concerns no single object."""
    message: str


class HeldFrontend(NamedTuple):
    """A frontend side that a table contains, but that kproxy did not compute from the input."""

    service: NamespacedName
    address: Address
    protocol: Protocol
    port: int
    from_outside: bool
    """Whether this is the side of scope LOCAL, for clients that are neither pods nor this node."""
    endpoints: tuple[tuple[Address, int], ...]

    def __str__(self) -> str:
        return f"{format_socket(self.address, self.port)}/{self.protocol}"


class Snapshot(Struct, frozen=True):
    """Everything that commands can show, at one moment."""

    inventory: Inventory
    frontends: list[Frontend]
    """The frontends on this node."""
    problems: list[Problem]
    """The problems of the input, and of the reconciler."""
    node: Node
    last_errors: tuple[Failure, ...] = ()
    """The last errors. Because of them, the tables may be older than the rest."""
    warnings: tuple[Problem, ...] = ()
    """Possible mistakes in the input, which have no consequences."""
    input_warnings: tuple[Problem, ...] = ()
    """Those of `warnings` that concern single objects of the input, for example unknown fields."""
    notes: tuple[str, ...] = ()
    """What is missing in the input, although nothing in it is wrong."""
    held_frontends: list[HeldFrontend] = []
    """Frontends in the tables, besides `frontends`, of services that kproxy could never read."""
    options: Options = Options()
    """What the rules depend on."""


def _encode_network(value: Any) -> str:
    """Encode a network. msgspec can encode all other types."""
    return str(value)


def _decode_network(_: type, text: str) -> Network:
    return ip_network(text)


@cache
def _decoder() -> msgspec.msgpack.Decoder[Snapshot]:
    return msgspec.msgpack.Decoder(Snapshot, dec_hook=_decode_network)


def encode(snapshot: Snapshot) -> bytes:
    """Return the message: a line `kproxy VERSION LENGTH`, and LENGTH bytes."""
    body = msgspec.msgpack.encode(snapshot, enc_hook=_encode_network)
    return b"%s%s %d\n%s" % (_GREETING, __version__.encode(), len(body), body)


def decode(message: bytes | bytearray) -> Snapshot:
    """Decode a message. Raises KproxyError if it is incomplete, or from another version."""
    end = message.find(b"\n")
    words = bytes(message[: max(end, 0)]).split(b" ")
    if end < 0 or len(words) != 3 or not message.startswith(_GREETING):
        raise KproxyError(
            "kproxy run closed the connection without a response.", "See the log of kproxy run."
        )
    version = words[1].decode(errors="replace")
    if version != __version__:
        raise KproxyError(
            f"kproxy run is version {version}, but this command is version {__version__}.",
            "Restart kproxy run.",
        )
    body = memoryview(message)[end + 1 :]
    if str(len(body)).encode() != words[2]:
        length = words[2].decode(errors="replace")
        raise KproxyError(f"kproxy run sent {len(body)} of {length} bytes.", "Try again.")
    try:
        return _decoder().decode(body)
    except Exception as error:  # of any type, also from `_decode_network`
        raise KproxyError(
            f"kproxy run is another build of version {version}, and its snapshot differs ({error}).",
            "Restart kproxy run.",
        ) from None
