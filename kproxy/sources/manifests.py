"""Files of manifests as a source. They are read and settled.

Settling does what an API server and its controllers do between a manifest and an EndpointSlice. Unchanged
files are not parsed again. Everything after parsing is computed again from all objects, and compared with the
previous result. That is simple, and takes time in proportion to the number of objects. Allocations are on
disk before they are programmed. If part of the input of a service cannot be read, nothing of the service is
removed, and the readable part is used.
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
from kproxy.sources.node import unknown_node
from kproxy.sources.progress import UNSHOWN, Progress
from kproxy.state.store import Store


class Manifests:
    """A `Source`. Its content is that of the last `load`. The caller must hold the store's lock."""

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
        """The objects of the manifests."""
        self.settled: Settled | None = None
        """The result of settling them; None before the first `load`."""

    def load(self, progress: Progress = UNSHOWN) -> Collection[NamespacedName]:
        """Read and settle the manifests. Returns the services that changed.

        Raises StateError if allocations cannot be saved.
        """
        decoded = self._read(progress)
        progress.begin(f"allocating and selecting for {len(decoded.state.services)} services")
        return self._settle(decoded, self._find_node(decoded.state.nodes))

    def names(self) -> Iterable[NamespacedName]:
        """Return the names of all services."""
        return list(self._in_use.services)

    def service(self, name: NamespacedName) -> Service | None:
        """Return a service with its addresses and node ports; None if it does not exist."""
        return self._in_use.services.get(name)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Return the slices of a service: those in the manifests, otherwise those made from its selector."""
        return self._in_use.slices.get(name, ())

    def node(self) -> Node:
        """Return this node."""
        return self._node

    def protected(self, name: NamespacedName) -> bool:
        """Whether part of a service cannot be read, and never could. The table may contain more of it."""
        settled = self.settled
        return settled is not None and settled.protected(name) and name not in self._in_use.complete

    def why_protected(self, name: NamespacedName) -> str:
        """Return `services/web.yaml cannot be read`, or why the service cannot have what it requests."""
        return "" if self.settled is None else why_held(self.settled, name)

    def problems(self) -> list[Problem]:
        """Return the errors in the manifests, and the requests that cannot be satisfied."""
        return self.settled.problems if self.settled else []

    def warnings(self) -> list[Problem]:
        """Return the contradictions between services and pods, and whether the Nodes lack this node."""
        nodes, name = self.state.nodes, self._node.name
        unknown = [unknown_node("", name, nodes)] if nodes and name not in nodes else []
        return unknown + (self.settled.warnings if self.settled else [])

    def inventory(self) -> Inventory:
        """Return all objects."""
        return manifest_inventory(self.state, self._in_use, self._node)

    def ignored(self) -> Mapping[str, int]:
        """Return the number of objects of each kind that kproxy does not use."""
        return self._decoded.ignored if self._decoded else {}

    def announced(self, nodes: Collection[str]) -> Announced:
        """Return the pool's addresses that this node, one of `nodes`, adds to its uplink. Needs a `load`."""
        assert self.settled is not None
        return announced_by(self._node.name, nodes, self.settled)

    def _read(self, progress: Progress = UNSHOWN) -> Decoded:
        documents, problems = read = self._reader.read(progress)
        if self._decoded is None or self._read_before is None or not _same(read, self._read_before):
            decoded = decode(documents)
            decoded.unreadable.everything += problems
            self._decoded = decoded._replace(problems=problems + decoded.problems)
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
    """Whether both have identical documents, because no file was parsed again, and equal problems."""
    pairs = list(zip(one[0], other[0], strict=False))
    return len(one[0]) == len(other[0]) and one[1] == other[1] and all(a is b for a, b in pairs)
