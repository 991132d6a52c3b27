"""The features of the kernel that kproxy uses, and which of them this host lacks.

Every sync loads the rules, into a new table or in a rehearsal (rehearsal.py). Only if that fails, the
features are tried one by one, each with the smallest table that needs it, in the network namespace of the
rehearsal. So the error names the missing features and the Services that need them. docs/hosts.md contains
this table.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from kproxy.kernel.netlink.core.structure import table_removal, whole_table
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.model import Family
from kproxy.nft import rules
from kproxy.nft.elements import Field
from kproxy.nft.expressions import AddressType, Connection, Hash, HeaderField, Meta, RandomNumber, TupleField
from kproxy.nft.ruleset import Chain, Hook, SetDeclaration, Skeleton
from kproxy.problems import HostError, KproxyError, TransactionError, UnsupportedFamily
from kproxy.table.layout import TABLE

DOCUMENT = "docs/hosts.md lists the requirements of kproxy."


class Content(NamedTuple):
    """The content of a table."""

    sets: tuple[SetDeclaration, ...] = ()
    chains: tuple[Chain, ...] = ()


class Feature(NamedTuple):
    """A feature of nftables that the rules use."""

    name: str
    purpose: str
    """What kproxy uses it for."""
    module: str
    """The kernel modules that contain it. (`ipv4` stands for `ipv6`, too.)"""
    config: str
    """The build options of the kernel that it needs. (`IPV4` stands for `IPV6`, too.)"""
    test: Callable[[Family], Content]
    """Returns the smallest content of a table that needs it."""
    since: str = ""
    """The first kernel version that has it, if later than 5.0."""
    only_for: str = ""
    """The Services that need it; "" if all do."""
    mark: str = ""
    """A text that occurs in the rules that use it; "" if all rules do."""


ADDRESS = (Field.ADDRESS,)
MAP = SetDeclaration("m", "", ADDRESS, (Field.ADDRESS, Field.PORT), is_map=True)
VERDICTS = replace(MAP, key=(Field.ADDRESS, Field.PROTOCOL, Field.PORT), value=())
BY_NUMBER = replace(MAP, key=(Field.NUMBER,), value=())
PREROUTING, POSTROUTING = Hook("prerouting", -100), Hook("postrouting", 100)


def _rule(statement: rules.Statement, hook: Hook = PREROUTING) -> Callable[[Family], Content]:
    return lambda _: _content((statement,), hook=hook)


def _set(declaration: SetDeclaration) -> Callable[[Family], Content]:
    return lambda _: Content((declaration,))


def _content(
    statements: tuple[rules.Statement, ...], *sets: SetDeclaration, hook: Hook = PREROUTING
) -> Content:
    return Content(sets, (Chain("c", (rules.Rule(statements),), "", hook),))


def _translation(family: Family) -> Content:
    return _content((rules.Translation(family, (HeaderField(family, "daddr"),), MAP.name),), MAP)


def _hash(family: Family) -> Content:
    hashed = Hash((HeaderField(family, "saddr"),), 2, 1)
    return _content((rules.VerdictLookup((hashed,), BY_NUMBER.name),), BY_NUMBER)


def _update(family: Family) -> Content:
    key, port = TupleField("original", "saddr", family), TupleField("reply", "proto-src", family)
    update = rules.SetUpdate(MAP.name, (key,), (key, port), 9)
    return _content((rules.Match(Meta.PROTOCOL, "tcp"), update), replace(MAP, size=9, timeout=3600))


TABLES = Feature("tables", "everything", "nf_tables", "NF_TABLES NF_TABLES_IPV4", lambda _: Content())
FEATURES = (
    Feature(
        "chains of type nat",
        "translating the first packet of a connection",
        "nft_chain_nat",
        "NFT_NAT",
        _rule(rules.Conclusion("accept")),
    ),
    Feature("`dnat`", "translating to an endpoint", "nft_nat", "NFT_NAT", _translation),
    Feature(
        "`masquerade`",
        "returning replies through this node",
        "nft_masq",
        "NFT_MASQ",
        _rule(rules.Masquerade(), POSTROUTING),
    ),
    Feature(
        "`ct`",
        "reading the original tuple",
        "nft_ct",
        "NFT_CT",
        _rule(rules.Match(Connection.STATUS, "dnat")),
    ),
    Feature(
        "`fib`",
        "recognizing this node's own addresses",
        "nft_fib_ipv4",
        "NFT_FIB_IPV4",
        _rule(rules.Match(AddressType("saddr"), "local")),
    ),
    Feature(
        "`reject` in prerouting",
        "rejecting connections to Services without endpoints",
        "nft_reject_ipv4",
        "NFT_REJECT_IPV4",
        _rule(rules.Reject()),
        "5.9",
    ),
    Feature(
        "verdict maps with concatenated keys",
        "finding the Service of a packet",
        "nf_tables",
        "NF_TABLES",
        _set(VERDICTS),
    ),
    Feature(
        "intervals",
        "matching the CIDRs of pods and Services",
        "nf_tables",
        "NF_TABLES",
        _set(SetDeclaration("s", "", ADDRESS, intervals=True)),
    ),
    Feature(
        "intervals in concatenated keys",
        "matching `loadBalancerSourceRanges`",
        "nf_tables",
        "NF_TABLES",
        _set(SetDeclaration("s", "", (Field.ADDRESS, Field.PORT), intervals=True)),
        "5.6",
    ),
    Feature(
        "counters in maps",
        "counting new connections of each endpoint",
        "nft_counter",
        "NFT_COUNTER",
        _set(replace(MAP, counter=True)),
        "5.7",
    ),
    Feature(
        "dynamic maps with timeouts",
        "storing the endpoints of clients (affinity)",
        "nf_tables",
        "NF_TABLES",
        _set(replace(MAP, timeout=3600)),
    ),
    Feature(
        "`numgen`",
        "choosing an endpoint at random",
        "nft_numgen",
        "NFT_NUMGEN",
        lambda _: _content((rules.VerdictLookup((RandomNumber(2),), BY_NUMBER.name),), BY_NUMBER),
        mark="numgen random",
    ),
    Feature(
        "`jhash`",
        "choosing an endpoint by the client's address",
        "nft_hash",
        "NFT_HASH",
        _hash,
        only_for="Services with the annotation `kproxy.io/consistent-hash`",
        mark="jhash",
    ),
    Feature(
        "`update`",
        "updating the stored endpoint of a client, counting refused connections",
        "nf_tables",
        "NF_TABLES",
        _update,
    ),
)


def missing_features(
    netlink: Netlink, family: Family, features: Iterable[Feature] = FEATURES
) -> list[Feature]:
    """Return the features that the kernel lacks; only TABLES if it has no tables.

    `netlink` belongs to a network namespace without kproxy's table. Raises OSError if it cannot be used.
    """
    if _lacks(netlink, TABLES, family):
        return [TABLES]
    return [feature for feature in features if _lacks(netlink, feature, family)]


def _lacks(netlink: Netlink, feature: Feature, family: Family) -> bool:
    try:
        netlink.commit(whole_table(Skeleton(family, TABLE, *feature.test(family))))
    except NetlinkError:
        return True
    netlink.commit([table_removal(family, TABLE)])
    return False


def explain(netlink: Netlink, skeleton: Skeleton, error: KproxyError) -> KproxyError:
    """Return an error that names the missing features of `skeleton`; `error` if none is missing.

    It is a TransactionError if only some Services need them, and a HostError if all Services do.
    """
    text = "\n".join(str(rule) for chain in skeleton.chains for rule in chain.rules)
    needed = [feature for feature in FEATURES if feature.mark in text]
    missing = missing_features(netlink, skeleton.family, needed)
    if not missing:
        return error
    if skeleton.family is Family.IPV6 and missing[0] is TABLES and not _has_ipv6():
        return UnsupportedFamily("This kernel has no IPv6: frontends with IPv6 addresses are left out.")
    return missing_features_error(skeleton.family, missing)


def missing_features_error(family: Family, missing: Sequence[Feature]) -> KproxyError:
    """Return the error for missing features, as `explain` does."""
    number = "4" if family is Family.IPV4 else "6"
    lacks = [f"{_plain(feature.name)} ({_plain(feature.purpose)})" for feature in missing]
    text = f"IPv{number} services cannot be programmed: the kernel lacks {'; '.join(lacks)}."
    hint = " ".join(_hints(missing, number))
    users = [_plain(feature.only_for) for feature in missing]
    if all(users):
        text += f" Only {' and '.join(users)} need it. All others can be served without them."
        return TransactionError(f"{text} {hint}")
    return HostError(text, hint)


def _plain(text: str) -> str:
    return text.replace("`", "")


def _hints(missing: Sequence[Feature], number: str) -> Iterable[str]:
    modules = _words(feature.module.replace("ipv4", f"ipv{number}") for feature in missing)
    configs = _words(feature.config.replace("IPV4", f"IPV{number}") for feature in missing)
    versions = [feature.since for feature in missing if feature.since]
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
