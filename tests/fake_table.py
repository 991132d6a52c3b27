"""A table that behaves like the kernel's, without a kernel.

It contains chains, sets and elements, applies a transaction completely or not at all, and refuses what the
kernel refuses, with the kernel's error number. tests/property/test_fake.py verifies this: it runs the same
stories on the fake and on the kernel (6.18). Not covered: sizes, timeouts, loops of chains, and packets.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from kproxy.model import Family
from kproxy.nft.elements import Elements, Field, Value, Verdict, range_ends
from kproxy.nft.ruleset import Chain, Skeleton
from kproxy.nft.transaction import Transaction
from kproxy.problems import TransactionError

# asm-generic/errno-base.h
ENOENT, EBUSY, EEXIST, EINVAL = 2, 16, 17, 22
_CALL = re.compile(r"\b(?:goto|jump) ([\w-]+)")


class FakeTable:
    """One table. `elements` includes those that packets would write."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.family: Family = skeleton.family
        self.sets = {d.name: d for d in skeleton.sets if d.constant is None}
        self.chains: dict[str, Chain] = {}
        self.elements: Elements = {name: {} for name in self.sets}
        self.commits = 0
        """The number of applied transactions. The kernel's generation grows in the same way."""
        self.add_chains(skeleton.chains)

    def add_chains(self, chains: Iterable[Chain]) -> None:
        """Write chains. The rules of an existing chain are replaced."""
        self.chains.update((chain.name, chain) for chain in chains)

    def delete_chain(self, name: str) -> None:
        """Delete a chain. Errors: ENOENT if it does not exist, EBUSY if a rule or an element leads to it."""
        if name not in self.chains:
            raise _refusal(ENOENT, f"no chain {name}")
        others = (rule for chain in self.chains.values() if chain.name != name for rule in chain.rules)
        in_rules = (called for rule in others for called in _CALL.findall(str(rule)))
        values = (value for members in self.elements.values() for value in members.values())
        if name in in_rules or any(isinstance(v, Verdict) and v.chain == name for v in values):
            raise _refusal(EBUSY, f"chain {name} is in use")
        del self.chains[name]

    def commit(self, transaction: Transaction) -> None:
        """Apply a transaction completely, or raise TransactionError with the errno of the first refusal.

        Adding an existing element with an equal value changes nothing, not even its comment. Adding it with
        another value is EEXIST, unless it is removed first.
        """
        after = {name: dict(members) for name, members in self.elements.items()}
        for name, keys in transaction.forget.items():
            for key in keys:
                self._members(after, name).pop(key, None)
        for name, removed in transaction.remove.items():
            for key in removed:
                self._check_key(name, key)
                members = self._members(after, name)
                held = _found(members, key) if self.sets[name].interval_key else key
                if members.pop(held, None) is None:
                    raise _refusal(ENOENT, f"{name} has no element {key.hex()}")
        for name, added in transaction.add.items():
            for key, value in added.items():
                self._add(after, name, key, value)
        self.elements = after
        self.commits += 1

    def _members(self, elements: Elements, name: str) -> dict[bytes, Value]:
        if name not in self.sets:
            raise _refusal(ENOENT, f"no set {name}")
        return elements[name]

    def _add(self, elements: Elements, name: str, key: bytes, value: Value) -> None:
        members = self._members(elements, name)
        self._check_key(name, key)
        declaration = self.sets[name]
        if isinstance(value, Verdict):
            if not declaration.is_map or declaration.value:
                raise _refusal(EINVAL, f"{name} does not map to verdicts")
            if value.chain and value.chain not in self.chains:
                raise _refusal(ENOENT, f"no chain {value.chain}")
        elif len(value) != self._width(declaration.value) or (declaration.is_map and not value):
            raise _refusal(EINVAL, f"{value.hex()!r} is not a value of {name}")
        others = () if key in members or not declaration.interval_key else members
        if any(_ends_in(key, other) for other in others):
            raise _refusal(EEXIST, f"{name} has a part of {key.hex()}")
        held = members.setdefault(key, value)
        if _plain(held) != _plain(value):
            raise _refusal(EEXIST, f"{name} has {key.hex()} with another value")

    def _check_key(self, name: str, key: bytes) -> None:
        if name not in self.sets:
            return
        declaration = self.sets[name]
        if len(key) != (2 if declaration.interval_key else 1) * self._width(declaration.key):
            raise _refusal(EINVAL, f"{key.hex()} is not a key of {name}")

    def _width(self, fields: Iterable[Field]) -> int:
        return sum(self.family.width if field is Field.ADDRESS else 4 for field in fields)


def _plain(value: Value) -> Value:
    """Return the value without the comment, which the kernel does not compare."""
    return value._replace(comment="") if isinstance(value, Verdict) else value


def _found(ranges: Iterable[bytes], key: bytes) -> bytes:
    """Return the range that the kernel removes: the one that contains the first end of `key`."""
    first, _ = range_ends(key)
    return next((held for held in ranges if _is_in(first, held)), key)


def _ends_in(new: bytes, held: bytes) -> bool:
    """Whether one end of a range is in another. The kernel accepts a range that encloses another."""
    return any(_is_in(end, held) for end in range_ends(new))


def _is_in(key: bytes, held: bytes) -> bool:
    first, last = range_ends(held)
    return first <= key <= last


def _refusal(errno: int, message: str) -> TransactionError:
    return TransactionError(message, errno)
