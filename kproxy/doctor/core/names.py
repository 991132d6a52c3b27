"""Checks of DNS: whether the servers answer, and whether pods and this host ask them as they should."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.dns.core.resolv import ResolvConf
from kproxy.doctor.core.asked import Asked
from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.configuration import NODE
from kproxy.doctor.core.facts import Names
from kproxy.doctor.core.objects import Objects
from kproxy.explain.question import THIS_NODE
from kproxy.model import Address, NamespacedName, Pod, format_address
from kproxy.problems import enumeration
from kproxy.show.snapshot import Snapshot

DNS_SERVICE = NamespacedName("kube-system", "kube-dns")
"""The Service of the DNS server, also with CoreDNS."""
PORT = 53
ENOUGH_NDOTS = 2
"""With it, `web.shop` is looked up in the search list."""


def dns_servers(snapshot: Snapshot) -> tuple[Address, ...]:
    """Return the addresses of the cluster's DNS servers: kproxy's own, or those of the Service kube-dns."""
    if snapshot.options.name_servers:
        return snapshot.options.name_servers
    service = snapshot.inventory.services.get(DNS_SERVICE)
    is_served = service is not None and any(port.port == PORT for port in service.ports)
    return service.cluster_ips if service is not None and is_served else ()


def silent(names: Names) -> Iterator[Sighting]:
    """A DNS server of the cluster does not answer."""
    for server, why in names.servers.items():
        if why:
            yield Sighting(NODE, f"the DNS server {format_address(server)} does not answer", (why,))


def asks_elsewhere(asked: Asked, objects: Objects, names: Names) -> Iterator[Sighting]:
    """The client asks no DNS server of the cluster."""
    for pod, conf in _pods(objects, names):
        if asked.client and asked.client.text == f"pod {pod.name}" and not _asks_cluster(conf, names):
            others = enumeration(list(map(format_address, conf.servers))) if conf.servers else "none"
            known = enumeration(list(map(format_address, names.servers)))
            evidence = f"nameserver in its resolv.conf: {others}", f"the cluster's: {known}"
            yield Sighting(f"Pod {pod.name}", "it does not ask the cluster's DNS server", evidence)


def short_search(objects: Objects, names: Names) -> Iterator[Sighting]:
    """The search list of a pod lacks its namespace."""
    for pod, conf in _pods(objects, names):
        wanted = f"{pod.name.namespace}.svc."
        if _asks_cluster(conf, names) and not any(f"{each}.".startswith(wanted) for each in conf.search):
            evidence = f"search in its resolv.conf: {' '.join(conf.search) or 'none'}"
            what = f"its search list has no domain {wanted}..."
            yield Sighting(f"Pod {pod.name}", what, (evidence,))


def few_dots(objects: Objects, names: Names) -> Iterator[Sighting]:
    """Names with a dot are not looked up in the search list of a pod."""
    for pod, conf in _pods(objects, names):
        if _asks_cluster(conf, names) and conf.ndots < ENOUGH_NDOTS:
            what = "names like SERVICE.NAMESPACE are first looked up without the search list"
            yield Sighting(f"Pod {pod.name}", what, (f"ndots in its resolv.conf: {conf.ndots}",), sure=False)


def host_not_connected(asked: Asked, names: Names) -> Iterator[Sighting]:
    """The resolver of this host does not know the Service, and the client is this host."""
    if names.host and asked.client and asked.client.text == THIS_NODE and not any(names.servers.values()):
        yield Sighting(NODE, "the resolver of this host does not know the names of Services", (names.host,))


def _pods(objects: Objects, names: Names) -> Iterator[tuple[Pod, ResolvConf]]:
    for pod in objects.inventory.pods:
        found = next((names.pods[address] for address in pod.addresses if address in names.pods), None)
        if found is not None and names.servers and not pod.host_network:
            yield pod, found


def _asks_cluster(conf: ResolvConf, names: Names) -> bool:
    return any(server in names.servers for server in conf.servers)
