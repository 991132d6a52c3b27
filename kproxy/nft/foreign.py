"""What kproxy knows of the tables of other programs: chains with hooks, and rules that translate. Pure."""

from __future__ import annotations

from typing import NamedTuple


class ForeignChain(NamedTuple):
    """A chain of another program."""

    family: str
    """ip, ip6 or inet."""
    table: str
    name: str
    hook: str = ""
    """prerouting, input, forward, output or postrouting; "" if the chain is not attached to one."""
    priority: int = 0
    """Lower ones are first."""
    drops: bool = False
    """Whether its policy is drop."""
    rules: int = 0
    """The number of its rules."""

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class ForeignTranslation(NamedTuple):
    """A rule of another program that translates destinations (dnat, redirect, DNAT, REDIRECT)."""

    chain: ForeignChain
    constants: frozenset[bytes]
    """The values that its matches compare with: addresses of 4 or 16 bytes, ports of 2 bytes."""
    first: int
    """The lowest priority of a chain through which its table translates destinations."""


class Foreign(NamedTuple):
    """The tables of other programs."""

    chains: tuple[ForeignChain, ...]
    translations: tuple[ForeignTranslation, ...]
