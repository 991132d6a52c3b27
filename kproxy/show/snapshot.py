"""The snapshot: everything that a running kproxy knows at one moment, as commands show it.

It is sent as msgpack, after a line with the version of the sender. The structs of the model define the format
of the bytes. So only a command of the same version can read them. Pure. The socket is in control/channel.py.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from functools import cache
from ipaddress import ip_network
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kproxy import __version__
from kproxy.gatewayapi import NO_OBJECTS
from kproxy.model import (
    Address,
    Event,
    Frontend,
    NamespacedName,
    Network,
    Node,
    Pod,
    Protocol,
    address_or_none,
    format_socket,
)
from kproxy.problems import KproxyError, Problem
from kproxy.show.components import Component
from kproxy.sources.core.inventory import Inventory
from kproxy.table.skeleton import Options

_GREETING = b"kproxy "
NODE = "node"
"""In a request: this node."""


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
    cluster_domain: str = ""
    """The domain of the DNS names that kproxy serves or would serve; "" if it serves none."""
    unhealthy: tuple[str, ...] = ()
    """Why /healthz of the running kproxy fails, or soon will."""
    address_failures: tuple[str, ...] = ()
    """Which load-balancer addresses the running kproxy could not add or announce, and why."""
    events: dict[NamespacedName, tuple[Event, ...]] = {}
    """The last events of Services, from a running kproxy. In order of their last occurrence."""
    credentials: str = ""
    """The kubeconfig or the folder of the service account that the running kproxy uses; "" with manifests."""
    http: bool = True
    """Whether HTTP listeners of Gateways are served: False if kproxy runs without --gateway."""
    components: tuple[Component, ...] = ()
    """The parts of the running kproxy."""


def snapshot_about(snapshot: Snapshot, words: Collection[str]) -> Snapshot:
    """Return the part that concerns these names of Services and pods, and these addresses.

    It contains the frontends of the Services and at the addresses, and the pods to which they lead.
    Problems, warnings and errors are complete. The word `node` stands for the addresses of this node.
    """
    named = _Named(snapshot, frozenset(words))
    chosen = [frontend for frontend in snapshot.frontends if named.frontend(frontend)]
    endpoints = {at for frontend in chosen for side in frontend.sides for at, _ in side.endpoints}
    services = {frontend.owner.service for frontend in chosen}
    inventory = snapshot.inventory
    return replace(
        snapshot,
        frontends=chosen,
        events={n: e for n, e in snapshot.events.items() if n in services or named.name(n)},
        inventory=replace(
            inventory,
            services={n: s for n, s in inventory.services.items() if n in services or named.name(n)},
            slices={n: s for n, s in inventory.slices.items() if n in services or named.name(n)},
            pods=tuple(pod for pod in inventory.pods if named.pod(pod, endpoints)),
            ingresses=(),
            workloads=(),
            gateways=NO_OBJECTS,
            gateway_services={n: s for n, s in inventory.gateway_services.items() if n in services},
            gateway_slices={n: s for n, s in inventory.gateway_slices.items() if n in services},
            left_out={n: s for n, s in inventory.left_out.items() if named.name(n)},
        ),
    )


class _Named:
    """What a request names."""

    def __init__(self, snapshot: Snapshot, words: frozenset[str]) -> None:
        self._words = words
        self._addresses = {packed for word in words if (packed := address_or_none(word))}
        if NODE in words:
            self._addresses |= {*snapshot.node.addresses, *snapshot.node.node_port_addresses}

    def name(self, name: NamespacedName) -> bool:
        """Whether it names an object, in any namespace."""
        return name.name in self._words

    def frontend(self, frontend: Frontend) -> bool:
        """Whether it names a frontend's Service or address."""
        return frontend.address in self._addresses or self.name(frontend.owner.service)

    def pod(self, pod: Pod, endpoints: Set[Address]) -> bool:
        """Whether it names a pod, or the pod is one of `endpoints`."""
        addresses = set(pod.addresses)
        return self.name(pod.name) or bool(addresses & self._addresses or addresses & endpoints)


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
