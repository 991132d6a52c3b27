"""The names of kproxy's table, and of the sets, maps and chains in it.

Users see these names in `nft list ruleset`, and kproxy finds the elements of an earlier run by them. The
names of slot chains (`lb-3`) are in layout.py, as they depend on how slots are arranged.
"""

from __future__ import annotations

from enum import StrEnum

from kproxy.model import Protocol

TABLE = "kproxy"


class SetName(StrEnum):
    """A set or map. skeleton.py has their declarations, and describes their contents."""

    POD_CIDRS = "pod-cidrs"
    SERVICE_CIDRS = "service-cidrs"
    CLUSTER_IPS = "cluster-ips"
    LOAD_BALANCER_IPS = "load-balancer-ips"
    SOURCE_RESTRICTED = "source-restricted"
    SOURCE_RANGES = "source-ranges"
    SERVICES = "services"
    SERVICES_FROM_OUTSIDE = "services-from-outside"
    MASQUERADE_RULES = "masquerade-rules"
    AFFINITY_RULES = "affinity-rules"
    ENDPOINTS_TCP = "endpoints-tcp"
    ENDPOINTS_UDP = "endpoints-udp"
    ENDPOINTS_SCTP = "endpoints-sctp"
    AFFINITY_TCP = "affinity-tcp"
    AFFINITY_UDP = "affinity-udp"
    AFFINITY_SCTP = "affinity-sctp"
    REFUSED_SOURCES = "refused-sources"
    REFUSED_PORTS = "refused-ports"
    EQUAL_BYTES = "equal-bytes"


class ChainName(StrEnum):
    """A chain whose name has no number. skeleton.py has its rules. Without DNS, the first two are absent."""

    DNS_PREROUTING = "dns-prerouting"
    DNS_OUTPUT = "dns-output"
    PREROUTING = "prerouting"
    OUTPUT = "output"
    INPUT = "input"
    EARLY_POSTROUTING = "early-postrouting"
    POSTROUTING = "postrouting"
    SERVICES = "services"
    CHECK_SOURCE = "check-source"
    UNKNOWN_PORT = "unknown-port"
    NO_ENDPOINTS = "no-endpoints"
    DISCARD = "discard"
    TRANSLATED = "translated"
    MASQ_ALWAYS = "masq-always"
    MASQ_NODE = "masq-node"
    REMEMBER = "remember"


_ENDPOINTS = {protocol: SetName(f"endpoints-{protocol}") for protocol in Protocol}
_AFFINITY = {protocol: SetName(f"affinity-{protocol}") for protocol in Protocol}
_REMEMBER_PREFIX = f"{ChainName.REMEMBER}-"
REMEMBER_PATTERN = rf"{_REMEMBER_PREFIX}\d+"
"""Matches the names that `remember_chain` returns."""


def endpoints_map(protocol: Protocol) -> SetName:
    """Return the name of the map from slots to endpoints."""
    return _ENDPOINTS[protocol]


def affinity_map(protocol: Protocol) -> SetName:
    """Return the name of the map from clients to endpoints."""
    return _AFFINITY[protocol]


def remember_chain(timeout: int) -> str:
    """Return the name of the chain that remembers clients for `timeout` seconds."""
    return f"{_REMEMBER_PREFIX}{timeout}"


def remember_timeout(chain: str) -> int | None:
    """Return the seconds in a name that `remember_chain` returned; None for other names."""
    seconds = chain.removeprefix(_REMEMBER_PREFIX)
    return int(seconds) if seconds != chain and seconds.isdigit() else None
