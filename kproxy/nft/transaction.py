"""A transaction: elements to remove, then elements to add. The kernel applies all of it or nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from kproxy.nft.elements import Elements, Value


class Transaction:
    """Elements to remove and to add, by set or map. If a key is in both, its value changes.

    `forget` contains keys of elements that packets wrote. They are removed, too, but it is no error if they
    no longer exist. In `remove`, a missing element makes the transaction fail.
    """

    def __init__(self) -> None:
        self.remove: dict[str, dict[bytes, Value]] = defaultdict(dict)
        self.add: dict[str, dict[bytes, Value]] = defaultdict(dict)
        self.forget: dict[str, list[bytes]] = defaultdict(list)

    def __bool__(self) -> bool:
        return any((*self.remove.values(), *self.add.values(), *self.forget.values()))

    def change(self, name: str, key: bytes, before: Value | None, after: Value | None) -> None:
        """Change the value of `key` from `before` to `after`. None stands for no element."""
        if before == after:
            return
        if before is not None:
            self.remove[name][key] = before
        if after is not None:
            self.add[name][key] = after

    def change_all(self, name: str, before: Mapping[bytes, Value], after: Mapping[bytes, Value]) -> None:
        """Change the values of the keys in `after` to those. `before` has the values of the set or map."""
        if after and before.keys().isdisjoint(after.keys()):  # one step for hundreds of thousands
            self.add[name].update(after)
            return
        for key, value in after.items():
            self.change(name, key, before.get(key), value)

    def apply_to(self, elements: Elements) -> None:
        """Apply the transaction to a copy of the table's elements. The kernel may still refuse it."""
        for name, removed in self.remove.items():
            for key in removed:
                del elements[name][key]
        for name, added in self.add.items():
            elements.setdefault(name, {}).update(added)

    def undo_on(self, elements: Elements) -> None:
        """Undo what `apply_to` did to `elements`."""
        for name, added in self.add.items():
            for key in added:
                del elements[name][key]
        for name, removed in self.remove.items():
            elements[name].update(removed)

    @property
    def counts(self) -> tuple[int, int]:
        """The numbers of removed and added elements."""
        return sum(map(len, self.remove.values())), sum(map(len, self.add.values()))
