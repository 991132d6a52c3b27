"""Frontends -> elements. What depends on the past (which endpoint sits in which slot) is left to the plan."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kproxy.compile.skeleton import STICKY_PROTOCOLS, Shapes
from kproxy.model import Family, Frontend, FrontendKind, Protocol, family_of
from kproxy.nft.elements import COMMENT_BYTES, Elements, Verdict, endpoint_value, frontend_key


class Target(NamedTuple):
    """What a frontend is translated to."""

    protocol: Protocol
    endpoints: tuple[bytes, ...]
    """Packed address . port, in order; one that occurs twice gets two slots."""
    sticky: bool
    comment: str
    """`namespace/service:port`: whose frontend this is."""


class Desired(NamedTuple):
    """What the table of one family is to hold."""

    targets: dict[bytes, Target]
    """By frontend key: the elements of `services` and `endpoints-*`, but for the slots."""
    elements: Elements
    """Those of the other sets and maps."""
    timeouts: frozenset[int]

    @property
    def shapes(self) -> Shapes:
        """The numbered chains that it needs."""
        return Shapes(
            frozenset(len(t.endpoints) for t in self.targets.values() if t.endpoints and not t.sticky),
            frozenset(len(t.endpoints) for t in self.targets.values() if t.endpoints and t.sticky),
            self.timeouts,
        )


def compile_frontends(frontends: Iterable[Frontend], family: Family) -> Desired:
    """The desired elements of one family; frontends of the other are passed over."""
    targets: dict[bytes, Target] = {}
    elements: Elements = {"cluster-ips": {}, "hairpin": {}, "masquerade-rules": {}, "affinity-rules": {}}
    timeouts: set[int] = set()
    for frontend in frontends:
        if family_of(frontend.address) is not family:
            continue
        key = frontend_key(frontend.address, frontend.protocol, frontend.port)
        # kproxy remembers TCP and UDP clients only.
        timeout = frontend.affinity_timeout if frontend.protocol in STICKY_PROTOCOLS else None
        targets[key] = Target(
            frontend.protocol,
            tuple(endpoint_value(*endpoint) for endpoint in frontend.endpoints),
            timeout is not None,
            str(frontend.owner).encode()[:COMMENT_BYTES].decode(errors="ignore"),
        )
        for address in frontend.local:
            elements["hairpin"][address + address] = b""
        if timeout is not None:
            timeouts.add(timeout)
            elements["affinity-rules"][key] = Verdict(f"goto remember-{timeout}")
        if frontend.kind is FrontendKind.CLUSTER_IP:
            elements["cluster-ips"][frontend.address] = b""
        else:
            elements["masquerade-rules"][key] = Verdict("goto masq-always")
    return Desired(targets, elements, frozenset(timeouts))
