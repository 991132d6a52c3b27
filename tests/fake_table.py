"""A table that behaves as the kernel's does, without a kernel: for tests of whatever drives one.

It holds chains, sets and elements, applies a transaction whole or not at all, and refuses
what the kernel refuses, with the kernel's error number. That it does so is itself tested:
tests/property/test_fake.py tells the same stories to it and to the kernel (6.18).
Left out: sizes, time-outs, loops of chains, and what packets do.
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
    """One table. `elements` is what it holds: those of services, and those that packets would write."""

    def __init__(self, skeleton: Skeleton) -> None:
        self.family: Family = skeleton.family
        self.sets = {d.name: d for d in skeleton.sets if d.constant is None}
        self.chains: dict[str, Chain] = {}
        self.elements: Elements = {name: {} for name in self.sets}
        self.commits = 0
        """Transactions applied so far; the kernel's generation grows as it does."""
        self.add_chains(skeleton.chains)

    def add_chains(self, chains: Iterable[Chain]) -> None:
        """Write chains; one that is there gets these rules in place of its own."""
        self.chains.update((chain.name, chain) for chain in chains)

    def delete_chain(self, name: str) -> None:
        """Delete a chain with its rules: ENOENT: there is none; EBUSY: something leads to it."""
        if name not in self.chains:
            raise _refusal(ENOENT, f"no chain {name}")
        others = (rule for chain in self.chains.values() if chain.name != name for rule in chain.rules)
        in_rules = (called for rule in others for called in _CALL.findall(str(rule)))
        values = (value for members in self.elements.values() for value in members.values())
        if name in in_rules or any(isinstance(v, Verdict) and v.chain == name for v in values):
            raise _refusal(EBUSY, f"chain {name} is in use")
        del self.chains[name]

    def commit(self, transaction: Transaction) -> None:
        """Apply all of it, or raise TransactionError with the errno of the first thing refused.

        An element that is there with an equal value may be added again: nothing changes, its
        comment included. Adding it with another value is EEXIST, unless it is removed first.
        """
        after = {name: dict(members) for name, members in self.elements.items()}
        for name, keys in transaction.forget.items():
            for key in keys:
                self._members(after, name).pop(key, None)
        for name, gone in transaction.remove.items():
            for key in gone:
                self._check_key(name, key)
                members = self._members(after, name)
                held = _found(members, key) if self.sets[name].interval_key else key
                if members.pop(held, None) is None:
                    raise _refusal(ENOENT, f"{name} has no element {key.hex()}")
        for name, new in transaction.add.items():
            for key, value in new.items():
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
            raise _refusal(EINVAL, f"{value.hex()!r} is no value of {name}")
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
            raise _refusal(EINVAL, f"{key.hex()} is no key of {name}")

    def _width(self, fields: Iterable[Field]) -> int:
        return sum(self.family.width if field is Field.ADDRESS else 4 for field in fields)


def _plain(value: Value) -> Value:
    """What the kernel compares: a comment is none of its business."""
    return value._replace(comment="") if isinstance(value, Verdict) else value


def _found(ranges: Iterable[bytes], key: bytes) -> bytes:
    """The range that the kernel removes: the one that the first end of `key` is in."""
    first, _ = range_ends(key)
    return next((held for held in ranges if _is_in(first, held)), key)


def _ends_in(new: bytes, held: bytes) -> bool:
    """Whether one end of a range is in another; one around it the kernel takes."""
    return any(_is_in(end, held) for end in range_ends(new))


def _is_in(key: bytes, held: bytes) -> bool:
    first, last = range_ends(held)
    return first <= key <= last


def _refusal(errno: int, message: str) -> TransactionError:
    return TransactionError(message, errno)
