"""What kproxy uses of the kernel and of libnftables, and which of it this host lacks.

Nothing of this is asked for where all is well: loading the rules once, which a sync does anyway
(structure.py), is the proof. Where that fails, the features are tried one by one, each with the
smallest script that needs it, in a namespace and a child process of its own, so that what is said
names what is missing and what would work without it. docs/hosts.md shows this table.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from kproxy.kernel import libnftables
from kproxy.kernel.namespace import ChildDied, in_fresh_namespace
from kproxy.model import Family
from kproxy.nft.ruleset import Skeleton
from kproxy.problems import HostError, KproxyError, TransactionError
from kproxy.table.names import TABLE

REFUSED_BY_KERNEL = "Could not process rule"
"""What libnftables says if it was not itself that did not understand."""
DOCUMENT = "docs/hosts.md lists what kproxy needs."


class Feature(NamedTuple):
    """One thing that the rules are made of."""

    name: str
    purpose: str
    """What kproxy does with it."""
    module: str
    """Modules to load, where the kernel has it as modules."""
    config: str
    """What the kernel has to be built with. (ipv4 and IPV4 stand for IPv6, too.)"""
    script: str
    """What is put into a table to try it; AF stands for the family, ADDRESS for the type of addresses."""
    since: str = ""
    """The first kernel that has it, where that is later than 5.0."""
    only_for: str = ""
    """The services that need it; "": all do."""
    mark: str = ""
    """What occurs in the rules that make use of it; "": they all do."""


def _rule(text: str) -> str:
    return f"chain c {{ {text}; }}"


TABLES = Feature("tables", "everything", "nf_tables", "NF_TABLES NF_TABLES_IPV4", "")
FEATURES = (
    Feature(
        "chains of type nat",
        "meeting the first packet of a connection",
        "nft_chain_nat",
        "NFT_NAT",
        "chain c { type nat hook prerouting priority -100; }",
    ),
    Feature("`dnat`", "sending a connection to an endpoint", "nft_nat", "NFT_NAT", _rule("dnat to ::1")),
    Feature(
        "`masquerade`",
        "replies that come back through this node",
        "nft_masq",
        "NFT_MASQ",
        _rule("masquerade fully-random"),
    ),
    Feature(
        "`ct`", "the tuple that a connection began with", "nft_ct", "NFT_CT", _rule("ct status dnat accept")
    ),
    Feature(
        "`fib`",
        "telling this node's own addresses",
        "nft_fib_ipv4",
        "NFT_FIB_IPV4",
        _rule("fib saddr type local accept"),
    ),
    Feature(
        "`reject` in prerouting",
        "refusing connections that nobody serves",
        "nft_reject_ipv4",
        "NFT_REJECT_IPV4",
        "chain c { type filter hook prerouting priority 0; reject; }",
        "5.9",
    ),
    Feature(
        "maps from several fields to chains",
        "finding the service of a packet",
        "nf_tables",
        "NF_TABLES",
        "map m { type ADDRESS . inet_proto . inet_service : verdict; }",
    ),
    Feature(
        "intervals",
        "the ranges of pods and services",
        "nf_tables",
        "NF_TABLES",
        "set s { type ADDRESS; flags interval; }",
    ),
    Feature(
        "intervals in one of several fields",
        "loadBalancerSourceRanges",
        "nf_tables",
        "NF_TABLES",
        "set s { type ADDRESS . inet_service; flags interval; }",
        "5.6",
    ),
    Feature(
        "counters in maps",
        "counting new connections by endpoint",
        "nft_counter",
        "NFT_COUNTER",
        "map m { type ADDRESS : ADDRESS; counter; }",
        "5.7",
    ),
    Feature(
        "maps that packets write",
        "affinity's memory",
        "nf_tables",
        "NF_TABLES",
        "map m { type ADDRESS : ADDRESS; flags dynamic,timeout; timeout 3h; }",
    ),
    Feature(
        "`numgen`",
        "choosing an endpoint at random",
        "nft_numgen",
        "NFT_NUMGEN",
        _rule("meta mark set numgen random mod 2"),
        mark="numgen random",
    ),
    Feature(
        "`jhash`",
        "choosing an endpoint by the client",
        "nft_hash",
        "NFT_HASH",
        _rule("meta mark set jhash AF saddr mod 2"),
        only_for="services with the annotation `kproxy.io/consistent-hash`",
        mark="jhash",
    ),
    Feature(
        "`update`",
        "remembering a client's endpoint",
        "nf_tables",
        "NF_TABLES",
        "map m { type mark : mark; size 9; flags dynamic,timeout; timeout 3h; }\n"
        + _rule("update @m { meta mark timeout 9s : meta mark }"),
        only_for="services with `sessionAffinity: ClientIP`",
        mark="update @",
    ),
)


class Absence(NamedTuple):
    """A feature that this host lacks."""

    feature: Feature
    in_library: bool
    """It is libnftables that does not know it, not the kernel."""


class NoFamily(HostError):
    """The kernel was told to have no IPv6: nothing of it can arrive, so there is nothing to serve."""


def missing(family: Family, features: Iterable[Feature] = FEATURES) -> list[Absence]:
    """Which of these this host lacks; without tables, only that. HostError if it cannot be tried."""
    tables = _try(TABLES, family)
    found = [tables] if tables else [_try(feature, family) for feature in features]
    return [absence for absence in found if absence]


def _try(feature: Feature, family: Family) -> Absence | None:
    address, other = ("ipv4_addr", "192.0.2.1") if family is Family.IPV4 else ("ipv6_addr", "2001:db8::1")
    content = feature.script.replace("ADDRESS", address).replace("AF", family).replace("::1", other)
    script = f"table {family} {TABLE} {{\n{content}\n}}"
    try:
        in_fresh_namespace(partial(libnftables.run, script))
    except TransactionError as error:
        return Absence(feature, in_library=bool(error.transaction) and REFUSED_BY_KERNEL not in str(error))
    except ChildDied:
        return Absence(feature, in_library=True)
    return None


def explained(skeleton: Skeleton, error: KproxyError) -> KproxyError:
    """An error that says which features of `skeleton` are missing; `error` if that is not why.

    TransactionError: only some services need them, and the others would be served. HostError: all do.
    """
    rules = "\n".join(str(rule) for chain in skeleton.chains for rule in chain.rules)
    absent = missing(skeleton.family, [feature for feature in FEATURES if feature.mark in rules])
    if not absent or absent[0] == Absence(TABLES, in_library=True):
        return error  # every libnftables knows an empty table: what it said itself says more
    if skeleton.family is Family.IPV6 and absent[0].feature is TABLES and not _has_ipv6():
        return NoFamily("This kernel has no IPv6: frontends with IPv6 addresses are left out.")
    return said(skeleton.family, absent)


def said(family: Family, absent: Sequence[Absence]) -> KproxyError:
    """The error for features that are missing, in sentences."""
    number = "4" if family is Family.IPV4 else "6"
    lacks = [
        f"{'libnftables' if in_library else 'the kernel'} lacks {_plain(feature.name)} ({feature.purpose})"
        for feature, in_library in absent
    ]
    text = f"IPv{number} services cannot be programmed: {'; '.join(lacks)}."
    hint = " ".join(_hints(absent, number))
    users = [_plain(absence.feature.only_for) for absence in absent]
    if all(users):
        text += f" Only {' and '.join(users)} need it: without them, all others are served."
        return TransactionError(f"{text} {hint}")
    return HostError(text, hint)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _hints(absent: Sequence[Absence], number: str) -> Iterable[str]:
    if any(absence.in_library for absence in absent):
        yield "Update nftables (1.0.6 or later)."
    features = [absence.feature for absence in absent if not absence.in_library]
    if features:
        modules = _words(feature.module.replace("ipv4", f"ipv{number}") for feature in features)
        configs = _words(feature.config.replace("IPV4", f"IPV{number}") for feature in features)
        versions = [feature.since for feature in features if feature.since]
        yield f"Try: modprobe {' '.join(modules)}."
        newer = f" and Linux {max(versions)} or later" if versions else ""
        yield f"The kernel needs {', '.join(f'CONFIG_{config}' for config in configs)}{newer}."
    yield DOCUMENT


def _words(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(word for text in texts for word in text.split()))


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True
