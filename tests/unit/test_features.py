"""The features of a host: the table in docs/hosts.md, and the errors for missing ones."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from threading import Thread

import pytest

from kproxy.kernel.features import FEATURES, TABLES, Feature, missing_features_error
from kproxy.kernel.fresh_namespace import netfilter_socket
from kproxy.model import Balance, Family
from kproxy.problems import HostError, TransactionError
from kproxy.table.layout import EndpointScope, SlotChain
from kproxy.table.skeleton import NumberedChains, Options, skeleton

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


@pytest.mark.parametrize(
    ("missing", "kind", "part"),
    [
        (
            ["`jhash`"],
            TransactionError,
            "Only Services with the annotation kproxy.io/consistent-hash need it",
        ),
        (["`jhash`", "`update`"], HostError, "updating the stored endpoint of a client"),
        (["`jhash`", "`fib`"], HostError, "Try: modprobe nft_fib_ipv6 nft_hash"),
        (["`fib`"], HostError, "The kernel needs CONFIG_NFT_FIB_IPV6. "),
        (["`reject` in prerouting"], HostError, "CONFIG_NFT_REJECT_IPV6 and Linux 5.9 or later."),
        (["intervals in concatenated keys", "counters in maps"], HostError, "and Linux 5.7 or later."),
    ],
)
def test_the_error_names_missing_features_and_their_users(missing: list[str], kind: type, part: str) -> None:
    found = [feature for feature in FEATURES if feature.name in missing]
    error = missing_features_error(Family.IPV6, found)
    assert type(error) is kind
    assert part in f"{error} {error.hint}"


def test_the_error_names_the_limit_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def start(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", start)
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(HostError, match="Cannot start a child process") as raised:
        netfilter_socket()
    assert "pids.max" in raised.value.hint
