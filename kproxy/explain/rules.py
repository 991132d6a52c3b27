"""The rules of kproxy's table that one packet passes: their text, and their handles in the kernel.

`explain` asks for the rule behind a step, `trace` for the text of a rule whose handle the kernel reported.
The kernel numbers rules by itself. So the handles of a chain are known only if the kernel's chain was read,
and has as many rules as kproxy writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from kproxy.nft.rules import Rule, Statement
from kproxy.nft.ruleset import Skeleton
from kproxy.table.layout import SetName
from kproxy.table.simulator import Simulator
from kproxy.table.skeleton import numbered_among, skeleton

Handles: TypeAlias = Mapping[str, Sequence[int]]
"""The handles of the rules in the kernel, by chain and in order."""
Needle: TypeAlias = Statement | SetName
"""What a rule contains: a statement, or a set or map that one of its statements uses."""


class OwnRule(NamedTuple):
    """A rule of kproxy's table."""

    text: str
    """As nft writes it."""
    handle: int | None
    """None if it is unknown."""

    def __str__(self) -> str:
        return self.text if self.handle is None else f"{self.text} # handle {self.handle}"


class OwnRules:
    """The rules of these chains, and of all chains without a number."""

    def __init__(self, table: Simulator, chains: Iterable[str], handles: Handles | None = None) -> None:
        """`handles` are those of the kernel's table; None if it was not read."""
        self.skeleton: Skeleton = skeleton(table.family, table.options, numbered_among(chains))
        self._rules = {chain.name: chain.rules for chain in self.skeleton.chains}
        self._handles = handles

    def find(self, chain: str, *needles: Needle) -> OwnRule | None:
        """Return the first rule of a chain that contains all needles; None without needles."""
        for number, rule in enumerate(self._rules.get(chain, ()) if needles else ()):
            if all(_contains(rule, needle) for needle in needles):
                return OwnRule(str(rule), self._handle(chain, number))
        return None

    def text(self, chain: str, handle: int) -> str:
        """Return the text of a rule by its handle; "" if it is unknown."""
        known = ((self._handle(chain, n), rule) for n, rule in enumerate(self._rules.get(chain, ())))
        return next((str(rule) for number, rule in known if number == handle), "")

    def changed(self) -> Iterator[tuple[str, int, int]]:
        """Return the chains with another number of rules in the kernel: name, desired and actual number."""
        for chain, rules in self._rules.items():
            if self._handles is not None and (found := len(self._handles.get(chain, ()))) != len(rules):
                yield chain, len(rules), found

    def _handle(self, chain: str, number: int) -> int | None:
        handles = (self._handles or {}).get(chain, ())
        return handles[number] if len(handles) == len(self._rules[chain]) else None


def _contains(rule: Rule, needle: Needle) -> bool:
    if isinstance(needle, SetName):
        return any(f"@{needle}" in str(statement).split() for statement in rule.statements)
    return needle in rule.statements
