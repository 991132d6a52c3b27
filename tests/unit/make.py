"""Short calls that make model objects. All parameters have plain defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import msgspec
import yaml

from kproxy.controlplane.hold import InUse, hold
from kproxy.controlplane.ledger import NOTHING, Allocations
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.settle import settle
from kproxy.controlplane.slices import PodIndex, make_slices, selects, with_host_addresses
from kproxy.decode import Decoded, Document, decode
from kproxy.model import (
    Backends,
    Balance,
    ClusterState,
    EndpointSlice,
    Family,
    Frontend,
    FrontendKind,
    NamespacedName,
    Node,
    Protocol,
    ServicePortName,
    parse_address,
)
from kproxy.nft.elements import Value
from kproxy.nft.transaction import Transaction
from kproxy.sources.core.inventory import Inventory, manifest_inventory
from kproxy.table.compile import Desired, compile_frontends
from tests.resolution import Resolution, resolve

RANGES = Ranges((ip_network("10.96.0.0/16"),), (30000, 32767))
NODE = Node("n1", (parse_address("192.0.2.1"), parse_address("2001:db8::1")))


def name(text: str) -> NamespacedName:
    """Parse `web` or `namespace/web`."""
    namespace, _, own = text.rpartition("/")
    return NamespacedName(namespace or "default", own)


def socket(text: str) -> tuple[bytes, int]:
    """Parse `10.0.0.1:80` or `[fd00::1]:80`."""
    address, _, port = text.rpartition(":")
    return parse_address(address.strip("[]")), int(port)


def backends(sockets: Iterable[str], elsewhere: bool = False) -> Backends:
    """Endpoints from sockets as text."""
    return Backends(tuple(socket(text) for text in sockets), elsewhere)


def frontend(
    at: str,
    endpoints: Iterable[str] = (),
    owner: str = "web",
    protocol: Protocol = Protocol.TCP,
    timeout: int | None = None,
    kind: FrontendKind = FrontendKind.CLUSTER_IP,
    outside: Iterable[str] | None = None,
    balance: Balance | None = None,
    ranges: Iterable[str] | None = None,
    elsewhere: bool = False,
    from_pool: bool = False,
) -> Frontend:
    """A frontend; sockets as text. `elsewhere` is of the last of its lists."""
    address, port = socket(at)
    sticky = Balance.RANDOM if timeout is None else Balance.STICKY
    return Frontend(
        owner=ServicePortName(name(owner), ""),
        kind=kind,
        address=address,
        protocol=protocol,
        port=port,
        backends=backends(endpoints, elsewhere and outside is None),
        from_outside=None if outside is None else backends(outside, elsewhere),
        balance=balance or sticky,
        affinity_timeout=timeout,
        source_ranges=None if ranges is None else tuple(ip_network(text) for text in ranges),
        from_pool=from_pool,
    )


def desired(*frontends: Frontend, family: Family = Family.IPV4) -> Desired:
    """What the table of one family is to hold."""
    return compile_frontends(frontends, family)


def documents(text: str, source: str = "in.yaml") -> list[Document]:
    """The documents of a YAML text."""
    return [Document(source, content) for content in yaml.safe_load_all(text) if content is not None]


def decoded(text: str) -> Decoded:
    """A YAML text, decoded."""
    return decode(documents(text))


def selected_slices(state: ClusterState, node: Node) -> dict[NamespacedName, tuple[EndpointSlice, ...]]:
    """The slices of the Services, also those that the pods make which they select, of all families."""
    pods = PodIndex(with_host_addresses(state.pods, node))
    selecting = [each for each in state.services.values() if state.pods and selects(each)]
    made = {
        each.name: make_slices(each, pods.select(each.name.namespace, each.selector), state.nodes)
        for each in selecting
    }
    return made | state.slices


def inventory_of(given: Decoded, ranges: Ranges = RANGES, node: Node = NODE) -> Inventory:
    """What a source that has just read this holds."""
    return manifest_inventory(given.state, hold(InUse({}, {}), settle(given, NOTHING, ranges, node)), node)


def manifest(kind: str, own_name: str | None = "web", /, **rest: Any) -> dict[str, Any]:
    """An object of one of the five kinds."""
    version = "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"
    metadata = {"name": own_name, **rest.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def service(own_name: str = "web", **spec: Any) -> dict[str, Any]:
    """A Service; without ports, one of port 80."""
    return manifest("Service", own_name, spec={"ports": [{"port": 80}], **spec})


def slice_of(
    of: str = "web", *addresses: str, own_name: str = "", port: int = 8080, **rest: Any
) -> dict[str, Any]:
    """An EndpointSlice of the service `of` with these endpoints. `rest` replaces fields."""
    endpoints = [{"addresses": [address]} for address in addresses]
    fields = {"addressType": "IPv4", "ports": [{"port": port}], "endpoints": endpoints, **rest}
    metadata = {"labels": {"kubernetes.io/service-name": of}}
    return manifest("EndpointSlice", own_name or of, metadata=metadata, **fields)


def as_json(content: Any, source: str = "in.json") -> Document:
    """A document as JSON text."""
    return Document(source, msgspec.Raw(msgspec.json.encode(content)))


def resolved(
    objects: Sequence[Any], ranges: Ranges, past: Allocations = NOTHING, node: Node = NODE
) -> Resolution:
    """Objects through the pure middle of a sync."""
    return resolve(decode(Document("in.yaml", content) for content in objects), past, ranges, node)


def everything(elements: Mapping[str, Mapping[bytes, Value]]) -> Transaction:
    """The transaction that fills an empty table."""
    transaction = Transaction()
    for name, members in elements.items():
        if members:
            transaction.add[name] = dict(members)
    return transaction
