"""Functions that make manifests: Services with their endpoints, nodes and pods.

Addresses have names. The ClusterIPs of a Service follow from its position in the scenario; all other
addresses are in `BOOK`. Endpoints are pods of the lab.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from netns_lab.topology import Family, Topology

Manifest = dict[str, Any]
FAMILIES: tuple[Family, ...] = (4, 6)

BOOK: dict[str, dict[Family, str]] = {
    "vip": {4: "198.51.100.1", 6: "2001:db8:1::1"},
    "vip-2": {4: "198.51.100.2", 6: "2001:db8:1::2"},
    "external": {4: "198.51.100.10", 6: "2001:db8:1::10"},
    "alt": {4: "192.168.88.11", 6: "fd88::11"},
    "loopback": {4: "127.0.0.1", 6: "::1"},
    "free": {4: "10.96.200.1", 6: "fd00:96::c801"},
    "first": {4: "10.96.10.10", 6: "fd00:96::10"},
}
"""`alt` is a second address of node n1. No Service has the address `free` of the service CIDR. `first` is the
ClusterIP of the first Service.
"""


def cluster_ip(index: int, family: Family) -> str:
    """Return the ClusterIP of the Service at this position in a scenario."""
    return f"10.96.10.{10 + index}" if family == 4 else f"fd00:96::{10 + index}"


def external(name: str, index: int, family: Family) -> str:
    """Return an address in `BOOK`, or the ClusterIP of the Service at this position if the name is `own`."""
    return cluster_ip(index, family) if name == "own" else BOOK[name][family]


def port(name: str, number: int, target: int | str, protocol: str = "TCP", node: int = 0) -> Manifest:
    """Return an entry of spec.ports."""
    shown = {"nodePort": node} if node else {}
    return {"name": name, "port": number, "targetPort": target, "protocol": protocol, **shown}


HTTP = port("http", 80, 8080)
HTTP_NODE = port("http", 80, 8080, node=30080)
DNS = port("dns", 53, 5353, "UDP")
DNS_NODE = port("dns", 53, 5353, "UDP", node=30053)
SCTP_NODE = port("sctp", 36412, 9000, "SCTP", node=30412)
ALL_NODE = (HTTP_NODE, DNS_NODE, SCTP_NODE)


class Member(NamedTuple):
    """An endpoint: a pod, and its properties in an EndpointSlice."""

    pod: str
    conditions: Mapping[str, bool] = MappingProxyType({})
    hints: Mapping[str, list[dict[str, str]]] = MappingProxyType({})
    node: str | None = None
    """The nodeName in the slice; None: the pod's node, "": no nodeName."""


def draining(pod: str) -> Member:
    """A terminating endpoint that still serves."""
    return Member(pod, {"ready": False, "serving": True, "terminating": True})


def dead(pod: str) -> Member:
    """A terminating endpoint that does not serve any more."""
    return Member(pod, {"ready": False, "serving": False, "terminating": True})


def unready(pod: str) -> Member:
    """An endpoint that is not ready and not terminating."""
    return Member(pod, {"ready": False, "serving": False, "terminating": False})


def remote(pod: str) -> Member:
    """An endpoint on another node, according to its slice."""
    return Member(pod, node="elsewhere")


def hinted(pod: str, nodes: Sequence[str] = (), zones: Sequence[str] = (), ready: bool = True) -> Member:
    """An endpoint with hints."""
    hints = {"forNodes": [{"name": name} for name in nodes], "forZones": [{"name": name} for name in zones]}
    return Member(pod, {"ready": ready}, {kind: names for kind, names in hints.items() if names})


class Service(NamedTuple):
    """A Service and its EndpointSlices."""

    name: str
    members: tuple[str | Member, ...]
    """The endpoints. A name without properties is a ready endpoint."""
    ports: tuple[Manifest, ...]
    spec: dict[str, Any]
    metadata: dict[str, Any]
    vips: tuple[tuple[str, str], ...]
    """The names of load-balancer addresses with their ipMode ("" for none)."""
    families: tuple[Family, ...]

    def manifests(self, index: int, topology: Topology) -> list[Manifest]:
        """Return the objects of the Service at position `index` in a scenario."""
        spec = {"type": "LoadBalancer" if self.vips else "ClusterIP", **self.spec, "ports": list(self.ports)}
        if spec["type"] != "ExternalName":
            spec.setdefault("ipFamilies", [f"IPv{family}" for family in self.families])
            spec.setdefault("clusterIPs", [cluster_ip(index, family) for family in self.families])
            spec["clusterIP"] = spec["clusterIPs"][0]
        if "externalIPs" in spec:
            names = spec["externalIPs"]
            spec["externalIPs"] = [external(name, index, family) for name in names for family in FAMILIES]
        ingress = [
            {"ip": external(name, index, family), **({"ipMode": mode} if mode else {})}
            for name, mode in self.vips
            for family in FAMILIES
        ]
        return [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": self.name, **self.metadata},
                "spec": spec,
                "status": {"loadBalancer": {"ingress": ingress}},
            },
            *(self._slice(family, topology) for family in FAMILIES if not spec.get("selector")),
        ]

    def _slice(self, family: Family, topology: Topology) -> Manifest:
        members = [Member(member) if isinstance(member, str) else member for member in self.members]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{self.name}-{family}",
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": f"IPv{family}",
            "ports": [
                {"name": p["name"], "port": p["targetPort"], "protocol": p["protocol"]} for p in self.ports
            ],
            "endpoints": [_endpoint(member, family, topology) for member in members],
        }


def _endpoint(member: Member, family: Family, topology: Topology) -> Manifest:
    pod = topology.pod(member.pod)
    node = pod.node if member.node is None else member.node
    return {
        "addresses": [topology.addresses(pod)[family]],
        "conditions": dict(member.conditions),
        "targetRef": {"kind": "Pod", "name": pod.name, "namespace": "default"},
        **({"nodeName": node} if node else {}),
        **({"hints": dict(member.hints)} if member.hints else {}),
    }


def service(
    name: str,
    *members: str | Member,
    ports: Iterable[Manifest] = (HTTP,),
    vips: Iterable[str] = (),
    families: Iterable[Family] = FAMILIES,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> Service:
    """Return a Service on 80/tcp or `ports`, with the endpoints `members`.

    A VIP is written `vip`, or `vip Proxy` with its ipMode. externalIPs are names as in `external`.
    """
    shown = tuple((vip.partition(" ")[0], vip.partition(" ")[2]) for vip in vips)
    metadata = {"annotations": annotations or {}, "labels": labels or {}}
    return Service(name, members, tuple(ports), spec, metadata, shown, tuple(families))


def node(name: str, topology: Topology, zone: str = "") -> Manifest:
    """Return a Node of the lab, in a zone."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone} if zone else {}},
        "spec": {"podCIDRs": list(topology.pod_cidrs(topology.node(name)).values())},
    }


def pods(
    topology: Topology, *names: str, ready: bool = True, families: Iterable[Family] = FAMILIES
) -> list[Manifest]:
    """Return pods with `app: web`. kproxy makes the EndpointSlices of Services that select them."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"nodeName": topology.pod(name).node},
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": topology.addresses(topology.pod(name))[family]} for family in families],
                "conditions": [{"type": "Ready", "status": str(ready)}],
            },
        }
        for name in names
    ]
