"""The facts that the doctor looks at. `gather.py` reads them, and tests make them.

Each kind of facts is None if the command does not look at it (with `-f`, only the input is looked at), and
`Unseen` if it could not be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias, TypeVar

from kproxy.dns.core.resolv import ResolvConf
from kproxy.doctor.core.asked import Asked
from kproxy.doctor.core.cause import Unseen
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.netlink.core.route import ListeningSocket
from kproxy.model import Address, Family, Frontend
from kproxy.nft.foreign import Foreign

T = TypeVar("T")
Seen: TypeAlias = T | Unseen | None


class Daemon(NamedTuple):
    """Whether kproxy runs."""

    failure: str = ""
    """Why the running kproxy could not be asked; "" if it could."""


class Tracking(NamedTuple):
    """The numbers of connection tracking."""

    entries: int
    maximum: int


class Flow(NamedTuple):
    """The tracked connections of one frontend to one endpoint."""

    frontend: Frontend
    endpoint: tuple[Address, int]
    unanswered: int
    """How many of them got no reply yet."""
    total: int


class Difference(NamedTuple):
    """An element or frontend side in the kernel's table that is not as desired."""

    subject: str
    """`Service default/web`, or `this node` if it belongs to no Service."""
    text: str


class Structure(NamedTuple):
    """What the rules of the kernel's tables show."""

    changed: tuple[str, ...] = ()
    """Chains and sets that are not as kproxy makes them, with their table."""
    lacking: tuple[str, ...] = ()
    """Why the kernel cannot load kproxy's rules."""


class Bridge(NamedTuple):
    """A bridge to which endpoints of this node are connected."""

    name: str
    family: Family
    ports: int
    no_hairpin: tuple[str, ...]
    """The ports on which a frame does not return to where it came from."""


class Listening(NamedTuple):
    """What waits behind endpoints."""

    sockets: Mapping[Address, tuple[ListeningSocket, ...]]
    """By address of an endpoint, all waiting sockets of its pod, as far as they are known."""
    failures: Mapping[tuple[Address, int], str]
    """Why TCP connections to other endpoints failed. Only for a command about one Service."""


class Names(NamedTuple):
    """What DNS does."""

    servers: Mapping[Address, str]
    """The DNS servers of the cluster, and why they do not answer; "" if they do."""
    pods: Mapping[Address, ResolvConf]
    """The resolv.conf of pods on this node by their addresses, as far as they are known."""
    host: str = ""
    """Why the resolver of this host does not find the Service in question; "" if it does, or is not asked."""


class Certificate(NamedTuple):
    """A certificate with which kproxy and the API server identify themselves."""

    name: str
    begins: str
    """RFC 3339, as `Facts.now`."""
    ends: str


class PathMTU(NamedTuple):
    """The largest packets, in bytes, on the ways to endpoints."""

    local: int
    """To the endpoints on this node: the interfaces of pods. 0 if there are none."""
    remote: Mapping[Address, int]
    """To endpoints on other nodes, and of each network one."""


class Routes(NamedTuple):
    """Addresses to which this node has no route, and why (an error of the kernel)."""

    to_cluster_ips: Mapping[Address, str]
    to_endpoints: Mapping[Address, str]


class Facts(NamedTuple):
    """Everything that the checks may take, by kind."""

    objects: Seen[Objects] = None
    """The input, and what kproxy made of it."""
    asked: Asked | None = None
    """None if the command names no Service."""
    daemon: Seen[Daemon] = None
    tables: Seen[tuple[Family, ...]] = None
    """The families whose table of kproxy exists in the kernel."""
    sysctls: Seen[Mapping[str, int]] = None
    """Settings of the kernel by name (`net.ipv4.ip_forward`). Those that the kernel lacks are missing."""
    counters: Seen[Mapping[str, int]] = None
    """The kernel's counters TcpExt by name, since the network namespace exists."""
    tracking: Seen[Tracking] = None
    routes: Seen[Routes] = None
    foreign: Seen[Foreign] = None
    """What the tables of other programs contain."""
    differences: Seen[tuple[Difference, ...]] = None
    structure: Seen[Structure] = None
    flows: Seen[tuple[Flow, ...]] = None
    affinity: Seen[Mapping[str, int]] = None
    """The number of entries of each affinity map (`ip affinity-tcp`), if a Service has affinity."""
    bridges: Seen[tuple[Bridge, ...]] = None
    mtu: Seen[PathMTU] = None
    listening: Seen[Listening] = None
    claimants: Seen[Mapping[Address, str]] = None
    """The MAC addresses of other hosts that have an address of this host's load balancer."""
    names: Seen[Names] = None
    certificates: Seen[tuple[Certificate, ...]] = None
    programs: Seen[tuple[ListeningSocket, ...]] = None
    """The waiting sockets of this host itself."""
    now: str = ""
    """The present time (RFC 3339, UTC)."""
    soon: str = ""
    """The time in a minute (RFC 3339, UTC): no object can be that new, unless clocks differ."""
