"""The features of a host: the table in docs/hosts.md, and the errors for missing ones."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from kproxy.kernel import features
from kproxy.kernel.features import FEATURES, TABLES, Feature, MissingFeature, missing_features_error
from kproxy.kernel.namespace import in_fresh_namespace
from kproxy.model import Balance, Family
from kproxy.problems import HostError, TransactionError
from kproxy.table.layout import EndpointScope, SlotChain
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, NumberedChains, Options, skeleton

PAGE = Path(__file__).parents[2] / "docs" / "hosts.md"
MARK = "<!-- features -->"
HEAD = (
    "| feature | what for | module | the kernel's configuration | since | needed by |\n" + "|---" * 6 + "|\n"
)


def row(feature: Feature) -> str:
    config = " ".join(f"`CONFIG_{name}`" for name in feature.config.split())
    cells = (feature.name, feature.purpose, f"`{feature.module}`", config, feature.since)
    return f"| {' | '.join(cells)} | {feature.only_for or 'all'} |\n"


def test_the_page_contains_the_table() -> None:
    shown = re.search(rf"^{MARK}\n\n((?:\|.*\n)*)", PAGE.read_text(), re.MULTILINE)
    assert shown
    assert shown[1] == HEAD + "".join(map(row, (TABLES, *FEATURES)))


def test_optional_features_are_in_the_rules_only_if_needed() -> None:
    every = frozenset(SlotChain(scope, balance, 2) for scope in EndpointScope for balance in Balance)
    for family in Family:
        needed, unneeded = (
            "\n".join(
                str(rule)
                for chain in skeleton(family, Options(), numbered_chains).chains
                for rule in chain.rules
            )
            for numbered_chains in (
                NumberedChains(every, frozenset({10})),
                NumberedChains(frozenset(), frozenset()),
            )
        )
        for feature in FEATURES:
            assert feature.mark in needed
            assert not feature.mark or feature.mark not in unneeded


def named(name: str, in_library: bool = False) -> MissingFeature:
    (feature,) = (feature for feature in (TABLES, *FEATURES) if feature.name == name)
    return MissingFeature(feature, in_library)


@pytest.mark.parametrize(
    ("missing", "kind", "part"),
    [
        (
            ["`jhash`"],
            TransactionError,
            "Only Services with the annotation kproxy.io/consistent-hash need it",
        ),
        (["`jhash`", "`update`"], TransactionError, "hash and Services with sessionAffinity: ClientIP need"),
        (["`jhash`", "`fib`"], HostError, "Try: modprobe nft_fib_ipv6 nft_hash"),
        (["`fib`"], HostError, "The kernel needs CONFIG_NFT_FIB_IPV6. "),
        (["`reject` in prerouting"], HostError, "CONFIG_NFT_REJECT_IPV6 and Linux 5.9 or later."),
        (["intervals in concatenated keys", "counters in maps"], HostError, "and Linux 5.7 or later."),
    ],
)
def test_the_error_names_missing_features_and_their_users(missing: list[str], kind: type, part: str) -> None:
    names = [feature.name for feature in FEATURES if feature.name in missing]
    error = missing_features_error(Family.IPV6, [named(name) for name in names])
    assert type(error) is kind
    assert part in f"{error} {error.hint}"


def test_a_feature_that_the_library_lacks() -> None:
    error = missing_features_error(Family.IPV4, [named("counters in maps", in_library=True)])
    assert str(error).endswith(
        "libnftables lacks counters in maps (counting new connections of each endpoint)."
    )
    assert error.hint.startswith("Update nftables (1.0.6 or later).")
    assert "modprobe" not in error.hint


def test_if_the_library_rejects_tables_its_own_error_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "missing_features", lambda *_: [named("tables", in_library=True)])
    error = TransactionError("nft rejected a change of the table: Error: no.")
    assert features.explain(skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS), error) is error


def test_the_error_names_the_limit_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(HostError, match="Cannot start a child process") as raised:
        in_fresh_namespace(lambda: None)
    assert "pids.max" in raised.value.hint
