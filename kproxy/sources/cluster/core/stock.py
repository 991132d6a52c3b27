"""Counts what the server has sent of one kind and is in use, so that a server cannot fill the memory.

A list that never ends and a watch that always adds objects look the same to the memory: there are too many
objects, or their text is too long.
"""

from __future__ import annotations

from kproxy.limits import API_INVALID, API_OBJECTS, API_PAGES_WITHOUT_NEWS, API_TEXT, MIB
from kproxy.model import NamespacedName
from kproxy.sources.cluster.core.events import UNNAMED, LimitError, ObjectChange


class Stock:
    """The sizes of the objects of a kind."""

    def __init__(self) -> None:
        self._sizes: dict[NamespacedName, int] = {}
        self._invalid: set[NamespacedName] = set()
        self._total = self._pages_without_news = self._unnamed = 0

    def names(self) -> set[NamespacedName]:
        """Return the names of the objects."""
        return set(self._sizes)

    def update(self, change: ObjectChange) -> None:
        """Count an object. Raises LimitError if there are too many, or they are too long together."""
        self._total += change.size - self._sizes.pop(change.key, 0)
        if change.size:
            self._sizes[change.key] = change.size
        self._count_invalid(change)
        if len(self._sizes) > API_OBJECTS:
            raise LimitError(f"there are more than {API_OBJECTS:,}")
        if self._total > API_TEXT:
            raise LimitError(f"together they are longer than {API_TEXT // MIB} MiB")

    def _count_invalid(self, change: ObjectChange) -> None:
        self._invalid.discard(change.key)
        if change.undecodable:
            self._invalid.add(change.key)
            self._unnamed += change.key == UNNAMED
        if len(self._invalid) + self._unnamed > API_INVALID:
            raise LimitError(f"more than {API_INVALID:,} are invalid")

    def end_page(self, before: int) -> None:
        """Count a page of a list, before which there were so many objects. Raises LimitError."""
        self._pages_without_news += len(self._sizes) == before
        if self._pages_without_news > API_PAGES_WITHOUT_NEWS:
            raise LimitError(f"the list has more than {API_PAGES_WITHOUT_NEWS} pages without a new object")

    def __len__(self) -> int:
        return len(self._sizes)
