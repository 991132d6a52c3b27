"""The hosts outside a lab's networks that manifests name as endpoints. Each is a client with servers."""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from netns_lab.topology import LAN, POD_NETWORK, Client, Port
from netns_lab.workloads import naming

Object = Mapping[str, Any]
MOST = 20


def external_hosts(objects: Iterable[Object]) -> tuple[Client, ...]:
    """Return a client ``external-1``... for each endpoint in Endpoints and EndpointSlices outside the lab.

    Its servers are on the ports of these objects. Raises ValueError for an invalid address or port, and if
    there are more than 20 addresses.
    """
    ports: dict[str, dict[int, Port]] = {}
    for address, port in (pair for each in objects for pair in _named_endpoints(each)):
        if not any(ip_address(address) in ip_network(net) for net in (*LAN.values(), *POD_NETWORK.values())):
            ports.setdefault(address, {})[port] = Port("", port)
    if len(ports) > MOST:
        raise ValueError(f"the manifests name more than {MOST} endpoints outside the networks of the lab")
    return tuple(
        Client(
            f"external-{number}",
            v4=f"192.168.77.{200 + number}" if ":" in address else address,
            v6=address if ":" in address else f"fd77::{200 + number}",
            ports=tuple(served.values()),
        )
        for number, (address, served) in enumerate(ports.items(), start=1)
    )


def _named_endpoints(manifest: Object) -> Iterator[tuple[str, int]]:
    with naming(manifest):
        for address, port in _endpoints(manifest):
            yield str(ip_address(address)), port


def _endpoints(manifest: Object) -> Iterator[tuple[str, int]]:
    """Yield address and port of each endpoint with TCP."""
    kind = manifest.get("kind")
    if kind == "List":
        for item in manifest.get("items") or ():
            yield from _endpoints(item)
    elif kind == "Endpoints":
        for subset in manifest.get("subsets") or ():
            addresses = [each["ip"] for each in subset.get("addresses") or ()]
            yield from _pairs(addresses, subset.get("ports") or ())
    elif kind == "EndpointSlice":
        addresses = [each for endpoint in manifest.get("endpoints") or () for each in endpoint["addresses"]]
        yield from _pairs(addresses, manifest.get("ports") or ())


def _pairs(addresses: Iterable[str], ports: Iterable[Object]) -> Iterator[tuple[str, int]]:
    tcp = [int(port["port"]) for port in ports if port.get("protocol") in (None, "TCP")]
    yield from ((address, port) for address in addresses for port in tcp)
