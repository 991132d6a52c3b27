"""The services that are measured: what they are, before anyone's format.

One TCP port each, three endpoints on three nodes, none of them this one. Addresses are spread
as a cluster does it: ClusterIPs within 10.96.0.0/12, pods in one /24 per node. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import NamedTuple

CLUSTER_CIDR = "10.128.0.0/9"
SERVICE_CIDR = "10.96.0.0/12"
PORT, TARGET_PORT = 80, 8080
ENDPOINTS = 3
NAMESPACES = 20
PODS_PER_NODE = 100

FIRST_CLUSTER_IP = IPv4Address("10.96.1.0")
FIRST_POD = IPv4Address("10.128.0.0")
FIRST_SPARE = IPv4Address("10.240.0.0")


class Endpoint(NamedTuple):
    """A pod behind a service."""

    address: str
    node: str


class Sample(NamedTuple):
    """A service and what is behind it."""

    namespace: str
    name: str
    address: str
    endpoints: tuple[Endpoint, ...]


def samples(count: int, endpoints: int = ENDPOINTS) -> Iterator[Sample]:
    """The first `count` services."""
    nodes = max(endpoints, -(-count * endpoints // PODS_PER_NODE))
    for index in range(count):
        pods = range(index * endpoints, (index + 1) * endpoints)
        yield Sample(
            f"team-{index % NAMESPACES}",
            f"service-{index}",
            str(FIRST_CLUSTER_IP + index),
            tuple(_pod(pod % nodes, pod // nodes) for pod in pods),
        )


def _pod(node: int, place: int) -> Endpoint:
    return Endpoint(str(FIRST_POD + 256 * node + 2 + place), f"node-{node}")


def spare(index: int) -> str:
    """A pod address that no sample has."""
    return str(FIRST_SPARE + index)


def one_changed(given: Sample) -> Sample:
    """The service with its last endpoint replaced by another, on the same node."""
    *protected, last = given.endpoints
    return given._replace(endpoints=(*protected, last._replace(address=spare(0))))
