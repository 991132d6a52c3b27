"""Finds the new, changed and deleted objects that `--watch` shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kproxy.model import NamespacedName
from kproxy.show.kinds import Kind


class Changes:
    """Compares the objects of one kind with those of the last snapshot; at first with nothing."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._before: dict[NamespacedName, Any] = {}

    def of(self, items: Sequence[Any]) -> list[Any]:
        """Return new and changed objects, then deleted ones in their last version, as kubectl does."""
        before, self._before = self._before, {self._kind.name(item): item for item in items}
        changed = [item for name, item in self._before.items() if before.get(name) != item]
        return changed + [item for name, item in before.items() if name not in self._before]
