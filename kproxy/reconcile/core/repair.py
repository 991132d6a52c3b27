"""Compares the structure of a table with the expected one. Elements of services are not compared."""

from __future__ import annotations

from msgspec import Struct

from kproxy.model import Protocol
from kproxy.nft.structure import Structure, TableFlags
from kproxy.table.layout import endpoints_map, is_numbered

ENDPOINTS_MAPS = frozenset(map(endpoints_map, Protocol))


class Repair(Struct, frozen=True):
    """The parts of the skeleton that must be written or removed."""

    sets: tuple[str, ...]
    contents: tuple[str, ...]
    chains: tuple[str, ...]
    extra_sets: tuple[str, ...]
    extra_chains: tuple[str, ...]
    create: bool
    """The table does not exist. Then nothing else is in the repair."""
    replace: bool
    """A declaration differs, so the whole table must be replaced."""
    convert: bool
    """The table differs in whether it has an owner, or whether it counts connections of endpoints.

    This also needs a new table, but nothing was damaged.
    """
    damage: tuple[str, ...]
    """Names of objects that another program changed, without missing or extra numbered chains."""


NEW_TABLE = Repair((), (), (), (), (), create=True, replace=False, convert=False, damage=())
"""There is no table."""


def is_counting(structure: Structure) -> bool:
    """Whether a table counts the connections of each endpoint. A missing map does not count."""
    return ENDPOINTS_MAPS & structure.sets.keys() <= structure.counters.keys()


def compare(actual: Structure | None, expected: Structure) -> Repair:
    """Return the changes that make the table as `expected`. `actual` is None if it does not exist."""
    if actual is None:
        return NEW_TABLE
    sets = [name for name in expected.sets if name not in actual.sets]
    contents = [
        name for name, members in expected.constants.items() if actual.constants.get(name, members) != members
    ]
    chains = [name for name, chain in expected.chains.items() if actual.chains.get(name) != chain]
    extra_sets = [name for name in actual.sets if name not in expected.sets]
    extra_chains = [name for name in actual.chains if name not in expected.chains]
    numbered = set(filter(is_numbered, (*chains, *extra_chains))) - (
        actual.chains.keys() & expected.chains.keys()
    )
    damage = [n for n in (*sets, *contents, *chains, *extra_sets, *extra_chains) if n not in numbered]
    wrong = [n for n, declared in expected.sets.items() if actual.sets.get(n, declared) != declared]
    counting = [n for n in expected.sets if n in actual.sets and not _has_same_counter(n, actual, expected)]
    wrong += [n for n in counting if n not in ENDPOINTS_MAPS]
    wrong += [
        n for n in chains if n in actual.chains and _declaration(actual, n) != _declaration(expected, n)
    ]
    return Repair(
        tuple(sets),
        tuple(contents),
        tuple(chains),
        tuple(extra_sets),
        tuple(extra_chains),
        create=False,
        replace=TableFlags.DORMANT in actual.table or bool(wrong),
        convert=bool((actual.table ^ expected.table) & TableFlags.OWNED) or bool(counting),
        damage=tuple(damage),
    )


def has_same_form(name: str, actual: Structure, expected: Structure) -> bool:
    """Whether an element of a set of one table can be in the set of the other one as it is."""
    return actual.sets.get(name) == expected.sets[name] and _has_same_counter(name, actual, expected)


def _has_same_counter(name: str, actual: Structure, expected: Structure) -> bool:
    return actual.counters.get(name) == expected.counters.get(name)


def _declaration(structure: Structure, chain: str) -> bytes:
    return structure.chains[chain].declaration
