"""Rules: sequences of statements. `str` returns nft's notation.

A rule ends at the first statement that does not match. kernel/netlink/core/rules.py packs rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from msgspec import Struct

from kproxy.model import Family, Protocol, format_address
from kproxy.nft import expressions


class Match(Struct, frozen=True):
    """Compares a value, or tests one bit of a connection: `meta l4proto != icmp`, `ct status dnat`."""

    expression: expressions.Meta | expressions.Connection | expressions.AddressType
    value: str
    """In nft's notation. The name of an interface may end with `*`."""
    equal: bool = True

    def __str__(self) -> str:
        value = f'"{self.value}"' if self.expression in expressions.INTERFACES else self.value
        return f"{self.expression} {'' if self.equal else '!= '}{value}"


class Comparison(Struct, frozen=True):
    """Compares a field with an address or port: `ip saddr 10.0.0.1`."""

    field: expressions.HeaderField
    value: bytes
    """In network order."""

    def __str__(self) -> str:
        is_port = len(self.value) == 2
        return f"{self.field} {int.from_bytes(self.value, 'big') if is_port else format_address(self.value)}"


class StartTrace(Struct, frozen=True):
    """Makes the kernel report the rules that the packet matches from here on."""

    def __str__(self) -> str:
        return "meta nftrace set 1"


class Lookup(Struct, frozen=True):
    """Whether a set contains a key: `ip daddr @cluster-ips`."""

    key: expressions.Concatenation
    set: str
    contained: bool = True

    def __str__(self) -> str:
        return f"{expressions.concatenated(self.key)} {'' if self.contained else '!= '}@{self.set}"


class VerdictLookup(Struct, frozen=True):
    """Takes the verdict from a map: `ip daddr vmap @services`. If the map lacks the key, the rule ends."""

    key: expressions.Concatenation
    map: str

    def __str__(self) -> str:
        return f"{expressions.concatenated(self.key)} vmap @{self.map}"


class Translation(Struct, frozen=True):
    """Replaces the destination by an address and port from a map. If the map lacks the key, the rule ends."""

    family: Family
    key: expressions.Concatenation
    map: str

    def __str__(self) -> str:
        return f"dnat {self.family} to {expressions.concatenated(self.key)} map @{self.map}"


class NoTrack(Struct, frozen=True):
    """Exempts the packet from connection tracking."""

    def __str__(self) -> str:
        return "notrack"


class Masquerade(Struct, frozen=True):
    """Replaces the source by this node's address, and the source port by a random one."""

    def __str__(self) -> str:
        return "masquerade fully-random"


class Reject(Struct, frozen=True):
    """Answers with an ICMP error (port unreachable), or with a TCP reset."""

    reset: bool = False

    def __str__(self) -> str:
        return "reject with tcp reset" if self.reset else "reject"


class Conclusion(Struct, frozen=True):
    """A verdict: `drop`, `return`, `goto CHAIN`, `jump CHAIN`."""

    text: str

    def __str__(self) -> str:
        return self.text


class SetUpdate(Struct, frozen=True):
    """Adds an element to a set or map, or updates it: its timeout begins again, and its counter counts.

    If the set is full, the rule ends.
    """

    set: str
    key: expressions.Concatenation
    value: expressions.Concatenation = ()
    """() for a set."""
    timeout: int = 0
    """Seconds; 0: that of the set."""

    def __str__(self) -> str:
        timeout = f" timeout {self.timeout}s" if self.timeout else ""
        value = f" : {expressions.concatenated(self.value)}" if self.value else ""
        return f"update @{self.set} {{ {expressions.concatenated(self.key)}{timeout}{value} }}"


Statement: TypeAlias = (
    Match
    | Comparison
    | StartTrace
    | Lookup
    | VerdictLookup
    | Translation
    | NoTrack
    | Masquerade
    | Reject
    | Conclusion
    | SetUpdate
)


class Rule(Struct, frozen=True):
    """A rule of a chain."""

    statements: tuple[Statement, ...]
    comment: str = ""

    @property
    def protocol(self) -> Protocol | None:
        """The transport protocol that the fields in the rule require. nft's notation does not mention it."""
        fields = (field for statement in self.statements for field in _fields(statement))
        return next((field.protocol for field in fields if field.protocol), None)

    def __str__(self) -> str:
        comment = f' comment "{self.comment}"' if self.comment else ""
        return " ".join(map(str, self.statements)) + comment


def rule(*statements: Statement, comment: str = "") -> Rule:
    """Return a rule of these statements."""
    return Rule(statements, comment)


def _fields(statement: Statement) -> Iterator[expressions.HeaderField]:
    if isinstance(statement, Comparison):
        yield statement.field
    elif isinstance(statement, Lookup | VerdictLookup | Translation | SetUpdate):
        for expression in statement.key:
            yield from _header_fields(expression)


def _header_fields(expression: expressions.Expression) -> tuple[expressions.HeaderField, ...]:
    if isinstance(expression, expressions.Hash):
        return expression.fields
    return (expression,) if isinstance(expression, expressions.HeaderField) else ()
