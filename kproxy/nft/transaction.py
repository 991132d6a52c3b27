"""A transaction: elements out, then elements in; the kernel applies all of it or nothing."""

from __future__ import annotations

from collections import defaultdict

from kproxy.nft.elements import Elements, Value


class Transaction:
    """Elements to remove and to add, by set or map. A key in both gets a new value.

    `forget` names elements that packets wrote and that may be gone by now: those missing are passed
    over, where removing what is not there fails the transaction.
    """

    def __init__(self) -> None:
        self.remove: dict[str, dict[bytes, Value]] = defaultdict(dict)
        self.add: dict[str, dict[bytes, Value]] = defaultdict(dict)
        self.forget: dict[str, list[bytes]] = defaultdict(list)

    def __bool__(self) -> bool:
        return any((*self.remove.values(), *self.add.values(), *self.forget.values()))

    def change(self, name: str, key: bytes, before: Value | None, after: Value | None) -> None:
        """Make the value of `key` go from `before` to `after`; None: no such element."""
        if before == after:
            return
        if before is not None:
            self.remove[name][key] = before
        if after is not None:
            self.add[name][key] = after

    def apply_to(self, elements: Elements) -> None:
        """Do to `elements` what the kernel does, to keep a copy. The kernel may refuse what is done here."""
        for name, gone in self.remove.items():
            for key in gone:
                del elements[name][key]
        for name, new in self.add.items():
            elements.setdefault(name, {}).update(new)

    def undo_on(self, elements: Elements) -> None:
        """Take back what `apply_to` did to `elements`."""
        for name, new in self.add.items():
            for key in new:
                del elements[name][key]
        for name, gone in self.remove.items():
            elements[name].update(gone)

    @property
    def counts(self) -> tuple[int, int]:
        """Elements removed and added."""
        return sum(map(len, self.remove.values())), sum(map(len, self.add.values()))
