"""A table as data: the declarations of its sets and maps, and its chains. elements.py has the elements."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from kproxy.model import Family, Network
from kproxy.nft.elements import Field
from kproxy.nft.expressions import Concatenation, concatenated
from kproxy.nft.rules import Rule


class SetDeclaration(Struct, frozen=True):
    """A set or a map."""

    name: str
    about: str
    """A comment for scripts."""
    key: tuple[Field, ...]
    value: tuple[Field, ...] = ()
    """The fields of a value; () for a set and for a verdict map."""
    is_map: bool = False
    key_typeof: Concatenation = ()
    """Expressions that have the type of the key, if no names of types express it."""
    value_typeof: Concatenation = ()
    """The same for the value. Not () if `key_typeof` is not, and the set is a map with values."""
    intervals: bool = False
    """Whether a key is a range."""
    counter: bool = False
    """Whether each element counts the packets that found it."""
    size: int = 0
    """The maximum number of elements; 0: no maximum."""
    timeout: int = 0
    """The default timeout of elements in seconds, in whole hours. Rules add such elements, when they evaluate
    packets. 0: transactions write the elements."""
    constant: tuple[Network, ...] | tuple[bytes, ...] | None = None
    """The networks or the keys in a constant set; None: transactions or packets write the elements."""

    @property
    def interval_key(self) -> bool:
        """Whether a key is a range of concatenated fields. It is packed as a first key and a last key."""
        return len(self.key) > 1 and self.intervals

    def spec(self, family: Family) -> Iterator[str]:
        """Return the statements that declare it in a script."""
        yield self._type(family)
        if self.size:
            yield f"size {self.size}"
        if self.intervals:
            yield "flags interval"
        if self.timeout:
            yield "flags dynamic,timeout"
            yield f"timeout {self.timeout // 3600}h"
        if self.counter:
            yield "counter"

    def _type(self, family: Family) -> str:
        if self.key_typeof:
            value = f" : {concatenated(self.value_typeof)}" if self.value_typeof else ""
            return f"typeof {concatenated(self.key_typeof)}{value}"
        key = " . ".join(field.type_name(family) for field in self.key)
        return f"type {key} : verdict" if self.is_map else f"type {key}"


class Hook(Struct, frozen=True):
    """Where the kernel enters a base chain."""

    name: str
    priority: int
    label: str = ""
    """nft's name of the priority, if it has one for this hook."""
    type: str = "nat"
    """The chain's type: `nat`, or `filter`, which sees all packets."""

    def __str__(self) -> str:
        return f"type {self.type} hook {self.name} priority {self.label or self.priority}; policy accept;"


class Chain(Struct, frozen=True):
    """A chain and its rules."""

    name: str
    rules: tuple[Rule, ...]
    about: str
    """A comment for scripts."""
    hook: Hook | None = None
    """The hook of a base chain."""


class Skeleton(Struct, frozen=True):
    """The declaration of a table: its sets, maps and chains, without elements that are written later."""

    family: Family
    table: str
    """The name of the table."""
    sets: tuple[SetDeclaration, ...]
    chains: tuple[Chain, ...]

    def set(self, name: str) -> SetDeclaration:
        """Return the declaration of a set or map. Raises KeyError if there is none with this name."""
        for declaration in self.sets:
            if declaration.name == name:
                return declaration
        raise KeyError(name)

    @property
    def written_sets(self) -> tuple[SetDeclaration, ...]:
        """The sets and maps whose elements transactions write."""
        return tuple(d for d in self.sets if d.constant is None and not d.timeout)
