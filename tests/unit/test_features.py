"""The table of features in docs/hosts.md is the one that is probed."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from kproxy.kernel import features
from kproxy.kernel.features import FEATURES, TABLES, Absence, Feature, said
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


def test_the_page_shows_the_table() -> None:
    shown = re.search(rf"^{MARK}\n\n((?:\|.*\n)*)", PAGE.read_text(), re.MULTILINE)
    assert shown
    assert shown[1] == HEAD + "".join(map(row, (TABLES, *FEATURES)))


def test_what_only_some_services_need_is_in_the_rules_only_with_them() -> None:
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


def named(name: str, in_library: bool = False) -> Absence:
    (feature,) = (feature for feature in (TABLES, *FEATURES) if feature.name == name)
    return Absence(feature, in_library)


@pytest.mark.parametrize(
    ("absent", "kind", "says"),
    [
        (
            ["`jhash`"],
            TransactionError,
            "Only services with the annotation kproxy.io/consistent-hash need it",
        ),
        (["`jhash`", "`update`"], TransactionError, "hash and services with sessionAffinity: ClientIP need"),
        (["`jhash`", "`fib`"], HostError, "Try: modprobe nft_fib_ipv6 nft_hash"),
        (["`fib`"], HostError, "The kernel needs CONFIG_NFT_FIB_IPV6. "),
        (["`reject` in prerouting"], HostError, "CONFIG_NFT_REJECT_IPV6 and Linux 5.9 or later."),
        (["intervals in one of several fields", "counters in maps"], HostError, "and Linux 5.7 or later."),
    ],
)
def test_what_is_missing_is_said_with_what_needs_it(absent: list[str], kind: type, says: str) -> None:
    names = [feature.name for feature in FEATURES if feature.name in absent]
    error = said(Family.IPV6, [named(name) for name in names])
    assert type(error) is kind
    assert says in f"{error} {error.hint}"


def test_a_library_that_does_not_know_is_to_be_updated() -> None:
    error = said(Family.IPV4, [named("counters in maps", in_library=True)])
    assert str(error).endswith("libnftables lacks counters in maps (counting new connections by endpoint).")
    assert error.hint.startswith("Update nftables (1.0.6 or later).")
    assert "modprobe" not in error.hint


def test_a_library_that_takes_nothing_at_all_speaks_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "missing", lambda *_: [named("tables", in_library=True)])
    error = TransactionError("nft refused a change of the table: Error: no.")
    assert features.explained(skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS), error) is error


def test_a_limit_of_processes_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(HostError, match="No child process") as raised:
        in_fresh_namespace(lambda: None)
    assert "pids.max" in raised.value.hint
