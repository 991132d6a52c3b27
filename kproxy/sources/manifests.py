"""Files of manifests as a source: read, allocate, select.

This does what an API server and its controllers do between a manifest and an EndpointSlice. Files that
did not change are not parsed again; all that follows is computed anew and compared, which costs as much as
there are objects, and is simple. Allocations are on disk before they are programmed. While part of the input
of a service cannot be read, nothing of that service is removed, and the readable part is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from kproxy.controlplane.hold import InUse, changed, hold, why_held
from kproxy.controlplane.ownership import Announced
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.settle import Settled, announced_by, settle
from kproxy.decode import Decoded, Document, decode
from kproxy.model import ClusterNode, ClusterState, EndpointSlice, NamespacedName, Node, Service
from kproxy.problems import Problem
from kproxy.sources.core.inventory import Inventory, manifest_inventory
from kproxy.sources.files import Reader
from kproxy.state.store import Store


class Manifests:
    """A `Source`, as of its last `load`. The caller holds the store's lock."""

    def __init__(
        self,
        paths: Sequence[str],
        store: Store,
        ranges: Ranges,
        find_node: Callable[[Mapping[str, ClusterNode]], Node],
    ) -> None:
        self._paths = paths
        self._reader = Reader(paths)
        self._store = store
        self._ranges = ranges
        self._find_node = find_node
        self._read_before: tuple[list[Document], list[Problem]] | None = None
        self._decoded: Decoded | None = None
        self._node = Node("")
        self._held = store.load()
        self._in_use = InUse({}, {})
        self.state = ClusterState({}, {}, (), {})
        """What was read."""
        self.settled: Settled | None = None
        """What came of it; None before the first `load`."""

    def load(self) -> Collection[NamespacedName]:
        """Read, allocate and select; the services that changed. StateError: allocations cannot be saved."""
        decoded = self._read()
        return self._settle(decoded, self._find_node(decoded.state.nodes))

    def names(self) -> Iterable[NamespacedName]:
        """All services."""
        return list(self._in_use.services)

    def service(self, name: NamespacedName) -> Service | None:
        """With its addresses and node ports."""
        return self._in_use.services.get(name)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Those given, else those of its selector."""
        return self._in_use.slices.get(name, ())

    def node(self) -> Node:
        """As of the last `load`."""
        return self._node

    def protected(self, name: NamespacedName) -> bool:
        """Whether part of it cannot be read and never could: there may be more of it in the table."""
        settled = self.settled
        return settled is not None and settled.protected(name) and name not in self._in_use.complete

    def why_protected(self, name: NamespacedName) -> str:
        """`services/web.yaml cannot be read`, or why it cannot have what it asks for."""
        return "" if self.settled is None else why_held(self.settled, name)

    def problems(self) -> list[Problem]:
        """What is wrong with the manifests, and what could not be given."""
        return self.settled.problems if self.settled else []

    def warnings(self) -> list[Problem]:
        """What services and pods do not agree on."""
        return self.settled.warnings if self.settled else []

    def inventory(self) -> Inventory:
        """As of the last `load`."""
        return manifest_inventory(self.state, self._in_use, self._node)

    def ignored(self) -> Mapping[str, int]:
        """How many objects there are of each kind that kproxy does not use."""
        return self._decoded.ignored if self._decoded else {}

    def announced(self, nodes: Collection[str]) -> Announced:
        """Which addresses of the pool this node, one of `nodes`, is to have on its uplink. After a `load`."""
        assert self.settled is not None
        return announced_by(self._node.name, nodes, self.settled)

    def _read(self) -> Decoded:
        documents, unread = read = self._reader.read()
        if self._decoded is None or self._read_before is None or not _same(read, self._read_before):
            decoded = decode(documents)
            decoded.unreadable.everything += unread
            self._decoded = decoded._replace(problems=unread + decoded.problems)
            self._read_before = read
        return self._decoded

    def _settle(
        self, decoded: Decoded, node: Node, warnings: Sequence[Problem] = ()
    ) -> Collection[NamespacedName]:
        settled = settle(decoded, self._held, self._ranges, node)
        self._store.save(self._held, settled.allocations)
        self._held = settled.allocations
        self.settled = settled._replace(warnings=[*settled.warnings, *warnings])
        self.state, self._node = decoded.state, node
        before, self._in_use = self._in_use, hold(self._in_use, settled)
        return changed(before, self._in_use)


def _same(one: tuple[list[Document], list[Problem]], other: tuple[list[Document], list[Problem]]) -> bool:
    """Whether they are the very same documents, as of files that were not parsed again."""
    pairs = list(zip(one[0], other[0], strict=False))
    return len(one[0]) == len(other[0]) and one[1] == other[1] and all(a is b for a, b in pairs)
