"""The difference between the structure of a table and the expected one, without elements of services."""

from __future__ import annotations

from typing import NamedTuple

from kproxy.nft.structure import Structure
from kproxy.table.layout import NUMBERED


class Repair(NamedTuple):
    """The parts of the skeleton that have to be written or removed."""

    sets: tuple[str, ...]
    contents: tuple[str, ...]
    chains: tuple[str, ...]
    extra_sets: tuple[str, ...]
    extra_chains: tuple[str, ...]
    replace: bool
    """A declaration is wrong, so the whole table has to be replaced."""
    damage: tuple[str, ...]
    """What another program must have changed. Numbered chains that came or went are not among it."""


NO_REPAIR = Repair((), (), (), (), (), replace=False, damage=())


def compare(actual: Structure | None, expected: Structure) -> Repair:
    """What has to be done so that the table is as `expected`. `actual`: None if there is no table yet."""
    if actual is None:
        return Repair(tuple(expected.sets), (), tuple(expected.chains), (), (), replace=False, damage=())
    sets = [name for name in expected.sets if name not in actual.sets]
    contents = [name for name, held in expected.constants.items() if actual.constants.get(name, held) != held]
    chains = [name for name, chain in expected.chains.items() if actual.chains.get(name) != chain]
    extra_sets = [name for name in actual.sets if name not in expected.sets]
    extra_chains = [name for name in actual.chains if name not in expected.chains]
    came_or_went = {n for n in (*chains, *extra_chains) if NUMBERED.fullmatch(n)} - (
        actual.chains.keys() & expected.chains.keys()
    )
    damage = [n for n in (*sets, *contents, *chains, *extra_sets, *extra_chains) if n not in came_or_went]
    wrong = [n for n, declared in expected.sets.items() if actual.sets.get(n, declared) != declared]
    wrong += [
        n for n in chains if n in actual.chains and _declaration(actual, n) != _declaration(expected, n)
    ]
    return Repair(
        tuple(sets),
        tuple(contents),
        tuple(chains),
        tuple(extra_sets),
        tuple(extra_chains),
        replace=actual.table != expected.table or bool(wrong),
        damage=tuple(damage),
    )


def _declaration(structure: Structure, chain: str) -> bytes:
    return structure.chains[chain].declaration
