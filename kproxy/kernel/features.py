"""The features of the kernel and libnftables that kproxy uses, and which of them this host lacks.

Every sync loads the rules once (structure.py). Only if that fails, the features are tried one by one,
each with the smallest script that needs it, in a network namespace and child process of its own. So
the error names the missing features and the Services that need them. docs/hosts.md contains this
table.
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
"""Part of libnftables' message if the kernel, and not libnftables itself, rejected a script."""
DOCUMENT = "docs/hosts.md lists the requirements of kproxy."


class Feature(NamedTuple):
    """A feature of nftables that the rules use."""

    name: str
    purpose: str
    """What kproxy uses it for."""
    module: str
    """The kernel modules that contain it. (`ipv4` stands for `ipv6`, too.)"""
    config: str
    """The build options of the kernel that it needs. (`IPV4` stands for `IPV6`, too.)"""
    script: str
    """The content of a table that tests it. AF stands for the family, ADDRESS for the type of addresses."""
    since: str = ""
    """The first kernel version that has it, if later than 5.0."""
    only_for: str = ""
    """The Services that need it; "" if all do."""
    mark: str = ""
    """A text that occurs in the rules that use it; "" if all rules do."""


def _rule(text: str) -> str:
    return f"chain c {{ {text}; }}"


TABLES = Feature("tables", "everything", "nf_tables", "NF_TABLES NF_TABLES_IPV4", "")
FEATURES = (
    Feature(
        "chains of type nat",
        "translating the first packet of a connection",
        "nft_chain_nat",
        "NFT_NAT",
        "chain c { type nat hook prerouting priority -100; }",
    ),
    Feature("`dnat`", "translating to an endpoint", "nft_nat", "NFT_NAT", _rule("dnat to ::1")),
    Feature(
        "`masquerade`",
        "returning replies through this node",
        "nft_masq",
        "NFT_MASQ",
        _rule("masquerade fully-random"),
    ),
    Feature(
        "`ct`",
        "reading the original tuple",
        "nft_ct",
        "NFT_CT",
        _rule("ct status dnat accept"),
    ),
    Feature(
        "`fib`",
        "recognizing this node's own addresses",
        "nft_fib_ipv4",
        "NFT_FIB_IPV4",
        _rule("fib saddr type local accept"),
    ),
    Feature(
        "`reject` in prerouting",
        "rejecting connections to Services without endpoints",
        "nft_reject_ipv4",
        "NFT_REJECT_IPV4",
        "chain c { type filter hook prerouting priority 0; reject; }",
        "5.9",
    ),
    Feature(
        "verdict maps with concatenated keys",
        "finding the Service of a packet",
        "nf_tables",
        "NF_TABLES",
        "map m { type ADDRESS . inet_proto . inet_service : verdict; }",
    ),
    Feature(
        "intervals",
        "matching the CIDRs of pods and Services",
        "nf_tables",
        "NF_TABLES",
        "set s { type ADDRESS; flags interval; }",
    ),
    Feature(
        "intervals in concatenated keys",
        "matching `loadBalancerSourceRanges`",
        "nf_tables",
        "NF_TABLES",
        "set s { type ADDRESS . inet_service; flags interval; }",
        "5.6",
    ),
    Feature(
        "counters in maps",
        "counting new connections of each endpoint",
        "nft_counter",
        "NFT_COUNTER",
        "map m { type ADDRESS : ADDRESS; counter; }",
        "5.7",
    ),
    Feature(
        "dynamic maps with timeouts",
        "storing the endpoints of clients (affinity)",
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
        "choosing an endpoint by the client's address",
        "nft_hash",
        "NFT_HASH",
        _rule("meta mark set jhash AF saddr mod 2"),
        only_for="Services with the annotation `kproxy.io/consistent-hash`",
        mark="jhash",
    ),
    Feature(
        "`update`",
        "updating the stored endpoint of a client",
        "nf_tables",
        "NF_TABLES",
        "map m { type mark : mark; size 9; flags dynamic,timeout; timeout 3h; }\n"
        + _rule("update @m { meta mark timeout 9s : meta mark }"),
        only_for="Services with `sessionAffinity: ClientIP`",
        mark="update @",
    ),
)


class MissingFeature(NamedTuple):
    """A feature that this host lacks."""

    feature: Feature
    in_library: bool
    """Whether libnftables lacks it, not the kernel."""


class UnsupportedFamily(HostError):
    """The kernel has no IPv6, so no IPv6 packet can arrive."""


def missing_features(family: Family, features: Iterable[Feature] = FEATURES) -> list[MissingFeature]:
    """Return the features that this host lacks; only TABLES if it has no tables.

    Raises HostError if the features cannot be tried.
    """
    tables = _try(TABLES, family)
    found = [tables] if tables else [_try(feature, family) for feature in features]
    return [missing for missing in found if missing]


def _try(feature: Feature, family: Family) -> MissingFeature | None:
    address, other = ("ipv4_addr", "192.0.2.1") if family is Family.IPV4 else ("ipv6_addr", "2001:db8::1")
    content = feature.script.replace("ADDRESS", address).replace("AF", family).replace("::1", other)
    script = f"table {family} {TABLE} {{\n{content}\n}}"
    try:
        in_fresh_namespace(partial(libnftables.run, script))
    except TransactionError as error:
        in_library = bool(error.transaction) and REFUSED_BY_KERNEL not in str(error)
        return MissingFeature(feature, in_library)
    except ChildDied:
        return MissingFeature(feature, in_library=True)
    return None


def explain(skeleton: Skeleton, error: KproxyError) -> KproxyError:
    """Return an error that names the missing features of `skeleton`; `error` if none is missing.

    It is a TransactionError if only some Services need them, and a HostError if all Services do.
    """
    rules = "\n".join(str(rule) for chain in skeleton.chains for rule in chain.rules)
    missing = missing_features(skeleton.family, [feature for feature in FEATURES if feature.mark in rules])
    if not missing or missing[0] == MissingFeature(TABLES, in_library=True):
        return error  # every version of libnftables knows tables: its own message is more exact
    if skeleton.family is Family.IPV6 and missing[0].feature is TABLES and not _has_ipv6():
        return UnsupportedFamily("This kernel has no IPv6: frontends with IPv6 addresses are left out.")
    return missing_features_error(skeleton.family, missing)


def missing_features_error(family: Family, missing: Sequence[MissingFeature]) -> KproxyError:
    """Return the error for missing features, as `explain` does."""
    number = "4" if family is Family.IPV4 else "6"
    lacks = [
        f"{'libnftables' if in_library else 'the kernel'} lacks {_plain(feature.name)} "
        f"({_plain(feature.purpose)})"
        for feature, in_library in missing
    ]
    text = f"IPv{number} services cannot be programmed: {'; '.join(lacks)}."
    hint = " ".join(_hints(missing, number))
    users = [_plain(one.feature.only_for) for one in missing]
    if all(users):
        text += f" Only {' and '.join(users)} need it. All others can be served without them."
        return TransactionError(f"{text} {hint}")
    return HostError(text, hint)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _hints(missing: Sequence[MissingFeature], number: str) -> Iterable[str]:
    if any(one.in_library for one in missing):
        yield "Update nftables (1.0.6 or later)."
    features = [one.feature for one in missing if not one.in_library]
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
