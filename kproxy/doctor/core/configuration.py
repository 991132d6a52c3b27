"""Checks of the input as a whole, and of the settings that the rules depend on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.facts import Certificate
from kproxy.doctor.core.objects import Objects
from kproxy.model import Address, Network, family_of, format_address, gateway_owner, network_family
from kproxy.problems import Problem, enumeration

NODE = "this node"
INPUT = "the input"


def input_problems(objects: Objects) -> Iterator[Sighting]:
    """Something in the input could not be used."""
    inventory = objects.inventory
    reported = {f"Service {name}" for name in (*inventory.services, *inventory.left_out)}
    for problem in objects.snapshot.problems:
        if problem.object not in reported and _concerns(objects, problem):
            subject = problem.object or problem.source or INPUT
            yield Sighting(subject, "this cannot be used", (str(problem),))


def _concerns(objects: Objects, problem: Problem) -> bool:
    """Whether a problem may concern a Service in question: a problem of a whole file may concern each."""
    if objects.only is None or not problem.object:
        return True
    return problem.object in {f"Service {name}" for name in objects.only}


def gateway_findings(objects: Objects) -> Iterator[Sighting]:
    """A condition of a Gateway or of a route is bad."""
    names, fields = _gateways_and_routes(objects), set(objects.snapshot.input_warnings)
    for problem in objects.snapshot.warnings:
        if problem.object in names and problem not in fields:
            yield Sighting(problem.object, problem.message, (str(problem),))


def _gateways_and_routes(objects: Objects) -> set[str]:
    """Return the objects of the Gateway API that may concern a Gateway in question."""
    found = objects.inventory.gateways
    gateways = {name for name in found.gateways if objects.concerns(gateway_owner(name))}
    routes = [
        route
        for of_kind in found.routes.values()
        for route in of_kind.values()
        if objects.only is None or any(each.name in gateways for each in route.parents if each.is_gateway)
    ]
    return {f"Gateway {name}" for name in gateways} | {f"{each.kind} {each.name}" for each in routes}


def unknown_node(objects: Objects) -> Iterator[Sighting]:
    """No Node object has this node's name."""
    node, nodes = objects.snapshot.node.name, objects.inventory.nodes
    if nodes and node not in nodes:
        evidence = f"--node-name is {node}", f"the Nodes are {enumeration(sorted(nodes))}"
        yield Sighting(NODE, f"there is no Node {node}, so no endpoint is local", evidence)


def pods_outside_cluster_cidr(objects: Objects) -> Iterator[Sighting]:
    """Pods have addresses outside of the ranges of pods."""
    networks = objects.snapshot.options.pod_cidrs
    outside = sorted({address for address in _pod_addresses(objects) if _is_outside(networks, address)})
    if outside:
        shown = enumeration([format_address(each) for each in outside])
        evidence = f"outside: {shown}", f"--cluster-cidr: {enumeration([str(each) for each in networks])}"
        yield Sighting(NODE, "pods have addresses outside of --cluster-cidr", evidence)


def _pod_addresses(objects: Objects) -> Iterator[Address]:
    hosts = {a for node in objects.inventory.nodes.values() for a in node.host_ips} | set(
        objects.snapshot.node.addresses
    )
    for pod in objects.inventory.pods:
        if not pod.host_network:
            yield from (address for address in pod.addresses if address not in hosts)


def _is_outside(networks: Iterable[Network], address: Address) -> bool:
    """Whether there are ranges of an address's family, and none contains it."""
    same = [network for network in networks if network_family(network) is family_of(address)]
    return bool(same) and not any(ip_address(address) in network for network in same)


def overlapping_ranges(objects: Objects) -> Iterator[Sighting]:
    """The ranges of pods and Services overlap."""
    options = objects.snapshot.options
    for pods in options.pod_cidrs:
        for services in options.service_cidrs:
            if pods.version == services.version and pods.overlaps(services):
                what = "the ranges of pods and of ClusterIPs overlap: packets to pods in both are dropped"
                yield Sighting(NODE, what, (f"--cluster-cidr {pods}", f"service range {services}"))


def certificates(found: tuple[Certificate, ...], now: str) -> Iterator[Sighting]:
    """A certificate for the connection to the API server is not valid now."""
    for each in found:
        evidence = f"valid from {each.begins} to {each.ends}", f"this host's clock: {now}"
        if each.ends < now:
            yield Sighting(each.name, "the certificate has expired", evidence)
        elif each.begins > now:
            yield Sighting(each.name, "the certificate is not valid yet", evidence)


def clock(objects: Objects, soon: str) -> Iterator[Sighting]:
    """Objects were created in the future of this host's clock."""
    times = [(each.origin.created, f"Service {each.name}") for each in objects.inventory.services.values()]
    times += [(each.origin.created, f"Pod {each.name}") for each in objects.inventory.pods]
    created, name = max(times, default=("", ""))
    if created > soon:
        evidence = f"{name} was created at {created}", f"this host's clock has not reached {soon}"
        yield Sighting(NODE, "this host's clock is behind that of the API server", evidence, sure=False)
