"""The Services for the measurements, as data without a format.

Each has one TCP port and three endpoints on three nodes, which are not this node. Addresses are distributed
as in a cluster: ClusterIPs in 10.96.0.0/12, pods in a /24 for each node. Pure.
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
    """A pod of a Service."""

    address: str
    node: str


class Sample(NamedTuple):
    """A Service and its endpoints."""

    namespace: str
    name: str
    address: str
    endpoints: tuple[Endpoint, ...]


def samples(count: int, endpoints: int = ENDPOINTS) -> Iterator[Sample]:
    """Yield the first `count` Services."""
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
    """Return a pod address that no sample has."""
    return str(FIRST_SPARE + index)


def one_changed(sample: Sample) -> Sample:
    """Return the Service with its last endpoint replaced by another on the same node."""
    *unchanged, last = sample.endpoints
    return sample._replace(endpoints=(*unchanged, last._replace(address=spare(0))))
