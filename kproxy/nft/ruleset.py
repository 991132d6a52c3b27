"""A table as data: sets, maps and chains, as declared; what is in the maps is apart (elements.py)."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.model import Family, Protocol
from kproxy.nft.elements import Field

TABLE = "kproxy"


class SetDeclaration(NamedTuple):
    """A set or a map."""

    name: str
    spec: tuple[str, ...]
    """nft statements: `type ...`, `flags ...`."""
    about: str
    key: tuple[Field, ...] = ()
    value: tuple[Field, ...] = ()
    """Fields of a data map's values."""
    is_map: bool = False
    constant: tuple[str, ...] | None = None
    """Elements that depend on options only, as nft text; None: they come from services."""
    dynamic: bool = False
    """Written by packets."""

    @property
    def interval_key(self) -> bool:
        """Whether a key is a range of concatenated fields: packed, it is a first key and a last key."""
        return len(self.key) > 1 and "flags interval" in self.spec


class AffinityUpdate(NamedTuple):
    """The rule that remembers a client's endpoint, from the connection's tuples: what really happened.

    A type of its own because libnftables before 1.1 aborts on the IPv6 form (a map's key and value
    pass 16 bytes), which the kernel takes: the driver places that one by netlink.
    """

    family: Family
    protocol: Protocol
    timeout: int
    """Seconds."""

    def __str__(self) -> str:
        l3 = self.family
        return (
            f"meta l4proto {self.protocol} update @affinity-{self.protocol} "
            f"{{ ct original {l3} saddr . ct original {l3} daddr . ct original proto-dst "
            f"timeout {self.timeout}s : ct reply {l3} saddr . ct reply proto-src }}"
        )


Rule = str | AffinityUpdate


class Chain(NamedTuple):
    """A chain; `hook` is the statement that makes it a base chain, "" for the others."""

    name: str
    rules: tuple[Rule, ...]
    about: str
    hook: str = ""


class Skeleton(NamedTuple):
    """All of a table that does not grow with the number of services."""

    family: Family
    sets: tuple[SetDeclaration, ...]
    chains: tuple[Chain, ...]

    def set(self, name: str) -> SetDeclaration:
        """The declaration of that name; KeyError if there is none."""
        for declaration in self.sets:
            if declaration.name == name:
                return declaration
        raise KeyError(name)

    @property
    def service_sets(self) -> tuple[SetDeclaration, ...]:
        """The sets and maps whose elements come from services."""
        return tuple(d for d in self.sets if d.constant is None and not d.dynamic)
