"""Files of manifests as a source. They are read and settled.

Settling does what an API server and its controllers do between a manifest and an EndpointSlice. What did not
change is not parsed, decoded or settled again: an object of an unchanged document stays the same value in
memory, and each step compares such values with those of its previous input. The result is the same as that
of all steps from the beginning. Allocations are on disk before they are programmed. If part of the input of
a service cannot be read, nothing of the service is removed, and the readable part is used.

A path without any document is usually a mistake: a wrong folder, or a pipe whose writer failed. So it removes
services only on request, and so does input of which kproxy uses nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import is_
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kproxy.controlplane.gateways import with_built_in
from kproxy.controlplane.hold import InUse, changed, hold, hold_objects, why_held
from kproxy.controlplane.ownership import Announced
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.settle import Settled, Settler, announced_by
from kproxy.controlplane.slices import PodIndex, SelectorIndex
from kproxy.controlplane.workloads import find_lacks, missing_pods
from kproxy.decode import Decoded, Decoder, Unreadable
from kproxy.gatewayapi import GatewayObjects
from kproxy.model import ClusterNode, ClusterState, EndpointSlice, NamespacedName, Network, Node, Service
from kproxy.problems import Problem, UsageError, listed
from kproxy.sources.core.inventory import Inventory, manifest_inventory
from kproxy.sources.core.routed import RoutedObjects, routed_objects
from kproxy.sources.files import STANDARD_INPUT, Read, Reader, has_manifests_below, shown
from kproxy.sources.gateways import findings, with_certificates, with_gateways
from kproxy.sources.node import unknown_node
from kproxy.sources.progress import UNSHOWN, Progress
from kproxy.state.store import Store

if TYPE_CHECKING:
    from kproxy.sources.engines.engine import Engine


class Manifests:
    """A `Source`. Its content is that of the last `load`. The caller must hold the store's lock."""

    def __init__(
        self,
        paths: Sequence[str],
        store: Store,
        ranges: Ranges,
        find_node: Callable[[Mapping[str, ClusterNode]], Node],
        recursive: bool = False,
        pipes: bool = True,
        engines: Sequence[Engine] = (),
    ) -> None:
        """`recursive`: also read the files in subfolders. `pipes`: a path may be a pipe.

        The containers of `engines` are pods, too.
        """
        self._paths = paths
        self._recursive = recursive
        self._reader = Reader(paths, recursive, pipes)
        self._store = store
        self._ranges = ranges
        self._find_node = find_node
        self._read_before: Read | None = None
        self._decoder = Decoder()
        self._engines = engines
        self._counts: Counter[str] | None = None
        self._written: Decoded | None = None
        self._parts: list[Decoded] = []
        self._decoded: Decoded | None = None
        self._node = Node("")
        self._held = store.load()
        self._settler = Settler()
        self._in_use = InUse({}, {})
        self._gateways = GatewayObjects()
        self._routed = RoutedObjects()
        self.state = ClusterState({}, {}, (), {})
        """The objects of the manifests."""
        self.settled: Settled | None = None
        """The result of settling them; None before the first `load`."""
        self.empty: list[str] = []
        """`no objects in PATH` for each path that removes nothing because it has no objects."""

    def load(self, progress: Progress = UNSHOWN, allow_empty: bool = False) -> Collection[NamespacedName]:
        """Read and settle the manifests, once. Returns the services that changed.

        Raises UsageError if a path contains no objects and that is not allowed, StateError if allocations
        cannot be saved.
        """
        if self._engines:
            import asyncio  # not at the top, because it takes long to import

            progress.begin("asking for containers")
            asyncio.run(self._ask_engines())
        decoded = self._read(progress)
        if self.empty and not allow_empty:
            refused = "Nothing was changed. --allow-empty accepts this, which may remove all Services."
            raise UsageError(f"{', '.join(self.empty)}. {refused}", self._hint(decoded))
        progress.begin(f"allocating and selecting for {len(decoded.state.services)} services")
        self._reader.forget()  # the text of all files, of which nothing is needed any more
        self._decoder = Decoder()
        self._read_before = None
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

    def service_cidrs(self) -> tuple[Network, ...]:
        """Return (): only the settings name the ranges of ClusterIPs."""
        return ()

    def protected(self, name: NamespacedName) -> bool:
        """Whether part of a service cannot be read, and never could. The table may contain more of it."""
        settled = self.settled
        return settled is not None and settled.protected(name) and name not in self._in_use.complete

    def why_protected(self, name: NamespacedName) -> str:
        """Return `services/web.yaml cannot be read`, or why the service cannot have what it requests."""
        return "" if self.settled is None else why_held(self.settled, name)

    def held(self) -> Mapping[NamespacedName, str]:
        """Return the services of which something is held, and why."""
        return self._in_use.held

    def problems(self) -> list[Problem]:
        """Return the errors in the manifests, and the requests that cannot be satisfied."""
        return self.settled.problems if self.settled else []

    def input_warnings(self) -> list[Problem]:
        """Return what is used, but perhaps not as it was meant."""
        return self._decoded.warnings if self._decoded else []

    def warnings(self) -> list[Problem]:
        """Return the contradictions between services and pods, and whether the Nodes lack this node."""
        nodes, name = self.state.nodes, self._node.name
        unknown = [unknown_node("", name, nodes)] if nodes and name not in nodes else []
        of_gateways = findings(self._gateways, self._in_use.services)
        settled = self.settled.warnings if self.settled else []
        return self._store.warnings() + unknown + settled + of_gateways

    def notes(self) -> list[str]:
        """Return the workloads whose pods are missing."""
        return self.settled.notes if self.settled else []

    def inventory(self) -> Inventory:
        """Return all objects."""
        return manifest_inventory(self.state, self._in_use, self._node, self._gateways)

    def routed(self) -> RoutedObjects:
        """Return the objects of the gateway. Those that can no longer be read stay as they were."""
        return self._routed

    def ignored(self) -> Mapping[str, int]:
        """Return the number of objects of each kind that kproxy does not use."""
        return self._decoded.ignored if self._decoded else {}

    def announced(self, nodes: Collection[str]) -> Announced:
        """Return the pool's addresses that this node, one of `nodes`, adds to its uplink. Needs a `load`."""
        assert self.settled is not None
        return announced_by(self._node.name, nodes, self.settled)

    def _read(self, progress: Progress = UNSHOWN, named: Collection[Path] | None = None) -> Decoded:
        read = self._reader.read(progress, named)
        if self._written is None or self._read_before is None or not _same(read, self._read_before):
            decoded = self._decoder.decode(read.documents)
            unreadable = Unreadable()
            unreadable.update(decoded.unreadable)
            unreadable.everything += read.problems
            self._written = replace(decoded, problems=read.problems + decoded.problems, unreadable=unreadable)
            counts, self._counts = self._counts, decoded.counts
            same_sources = self._read_before is not None and read.sources is self._read_before.sources
            self._read_before = read
            if self.empty or read.problems or counts is not decoded.counts or not same_sources:
                self.empty = [
                    f"{what} in {STANDARD_INPUT if path == '-' else shown(path)}"
                    for what, path in _empty_paths(read, decoded)
                    if not self._is_emptied(path, read)
                ]
        return self._with_containers(self._written)

    def _with_containers(self, written: Decoded) -> Decoded:
        """Return the objects with the pods of the engines: the same result until something changes."""
        parts = [written, *(engine.decoded for engine in self._engines)]
        if self._decoded is None or any(a is not b for a, b in zip(parts, self._parts, strict=True)):
            self._parts = parts
            self._decoded = _merged(written, parts[1:]) if self._engines else written
        return self._decoded

    async def _ask_engines(self) -> None:
        for engine in self._engines:
            await engine.read()

    def _hint(self, decoded: Decoded) -> str:
        """Return what may be the reason that there are no objects."""
        if decoded.unused and not decoded.has_used:
            pods = missing_pods(find_lacks(decoded.state, PodIndex(()), SelectorIndex(())))
            others = f"There are only objects of other kinds: {listed(decoded.unused)}."
            return f"{others} {pods}." if pods else others
        assert self._read_before is not None
        empty = (path for _, path in _empty_paths(self._read_before, decoded))
        below = not self._recursive and any(map(has_manifests_below, empty))
        return "There are manifests in subfolders: -R reads them." if below else ""

    def _is_emptied(self, path: str, read: Read) -> bool:
        """Whether a path without objects is known to have none on purpose."""
        return False

    def _settle(
        self, decoded: Decoded, node: Node, warnings: Sequence[Problem] = ()
    ) -> Collection[NamespacedName]:
        found = with_certificates(with_built_in(decoded.gateways), decoded.state.secrets)
        self._gateways = hold_objects(self._gateways, found, decoded.unreadable)
        decoded = replace(decoded, gateways=self._gateways)
        settled = self._settler.settle(decoded, self._held, self._ranges, node)
        self._store.save(self._held, settled.allocations)
        self._held = settled.allocations
        self.settled = replace(settled, warnings=[*settled.warnings, *warnings])
        self.state, self._node = decoded.state, node
        before, self._in_use = self._in_use, with_gateways(hold(self._in_use, settled), self._gateways)
        self._routed = routed_objects(self._routed, decoded, self._in_use, node)
        return changed(before, self._in_use)


def _same(one: Read, other: Read) -> bool:
    """Whether both have identical documents, because no file was parsed again, and equal problems."""
    equal = len(one.documents) == len(other.documents) and one[1:] == other[1:]
    return equal and all(map(is_, one.documents, other.documents))


def _empty_paths(read: Read, decoded: Decoded) -> Iterator[tuple[str, str]]:
    """Yield what is missing, and the path: for each path without documents, else if no object is used."""
    present = {document.source for document in read.documents} | {each.source for each in read.problems}
    empty = [path for path, sources in read.sources.items() if present.isdisjoint(sources)]
    yield from (("no objects", path) for path in empty)
    if not empty and not read.problems and not decoded.has_used:
        what = "no objects that kproxy uses" if decoded.unused else "no objects"
        yield from ((what, path) for path in read.sources)


def _merged(written: Decoded, found: Sequence[Decoded]) -> Decoded:
    from kproxy.sources.engines.core.merge import with_found_pods  # only with --pods-from

    return with_found_pods(written, found)
