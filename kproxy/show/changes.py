"""What `--watch` shows: objects that are new or changed since the last snapshot, and deleted ones. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kproxy.model import NamespacedName
from kproxy.show.kinds import Kind


class Changes:
    """Compares the objects of one kind with what they were before; at first there were none."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._before: dict[NamespacedName, Any] = {}

    def of(self, items: Sequence[Any]) -> list[Any]:
        """Those that are new or changed, then the deleted ones as they last were; so kubectl shows them."""
        before, self._before = self._before, {self._kind.name(item): item for item in items}
        changed = [item for name, item in self._before.items() if before.get(name) != item]
        return changed + [item for name, item in before.items() if name not in self._before]
