"""Files of manifests as the source of a daemon: read, probe, allocate, select; again when something changed.

It does what an API server, its controllers and a kubelet's probes do between a manifest and an
EndpointSlice. Files that did not change are not parsed again; all that follows is computed anew and
compared, which costs as much as there are objects, and is simple. What is allocated is on disk before
it is programmed. Of a service part of whose input cannot be read nothing goes, and what can be read counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.settle import Settled, settle
from kproxy.controlplane.slices import addressed
from kproxy.decode import Decoded, Document, decode
from kproxy.model import ClusterState, EndpointSlice, NamespacedName, Node, Service
from kproxy.probes.core.readiness import (
    NOT_PROBED,
    PodReadiness,
    not_probed,
    probed_on,
    why_not,
    with_readiness,
)
from kproxy.probes.prober import Prober, Runner
from kproxy.problems import Problem
from kproxy.sources.files import Reader
from kproxy.sources.folder import changes
from kproxy.state.store import Store, Watched

logger = logging.getLogger(__name__)


class Manifests:
    """A `Source` (daemon/loop.py), for who holds the store's lock."""

    synced = True
    """The first `take` reads everything."""

    def __init__(
        self,
        paths: Sequence[str],
        store: Store,
        ranges: Ranges,
        find_node: Callable[[ClusterState], Node],
        runner: Runner,
    ) -> None:
        self._paths = paths
        self._reader = Reader(paths)
        self._store = store
        self._ranges = ranges
        self._find_node = find_node
        self._runner = runner
        self._unread = True
        self._wake: Callable[[], None] = lambda: None
        self._read_before: tuple[list[Document], list[Problem]] | None = None
        self._decoded: Decoded | None = None
        self._settled_of: Decoded | None = None
        self._settled_with: tuple[Node, Mapping[NamespacedName, PodReadiness]] | None = None
        self._node = Node("")
        self._prober: Prober | None = None
        self._remembered: dict[Watched, bool] = {}
        self._told: dict[NamespacedName, str] = {}
        self._held = store.load()
        self._services: dict[NamespacedName, Service] = {}
        self._slices: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
        self._whole: set[NamespacedName] = set()
        """Services that have been read without doubt: what may be missing of them now is in `_slices`."""
        self.state = ClusterState({}, {}, (), {})
        """What was read, its pods as ready as they were found."""
        self.settled: Settled | None = None
        """What came of it; None before the first `take`."""

    async def run(self, wake: Callable[[], None]) -> None:
        """Watch the files and probe the pods; never returns."""
        self._wake = wake
        try:
            async for _ in changes(self._paths):
                self._unread = True
                wake()
        finally:
            if self._prober is not None:
                await self._prober.close()

    async def take(self) -> Collection[NamespacedName]:
        """Read what changed; StateError if what is to be kept could not be."""
        decoded = await asyncio.to_thread(self._read)
        node = await asyncio.to_thread(self._find_node, decoded.state)  # pyroute2 wants no loop around it
        if self._prober is None:
            self._remembered = await asyncio.to_thread(self._store.readiness)
            known = {watched.identity: ready for watched, ready in self._remembered.items()}
            self._prober = Prober(self._runner, self._wake, known)
        pods = addressed(probed_on(decoded.state.pods, node.name), node)
        self._prober.watch(pods, decoded.unreadable.covers)
        statuses, remembered = self._prober.statuses(), self._prober.remembered()
        given = node, statuses
        if decoded is self._settled_of and given == self._settled_with:
            return ()  # somebody's routes changed, say
        changed = await asyncio.to_thread(self._settle, decoded, node, statuses, remembered)
        self._settled_of, self._settled_with = decoded, given
        return changed

    def names(self) -> Iterable[NamespacedName]:
        """All services."""
        return list(self._services)

    def service(self, name: NamespacedName) -> Service | None:
        """With its addresses and node ports."""
        return self._services.get(name)

    def slices(self, name: NamespacedName) -> tuple[EndpointSlice, ...]:
        """Those given, else those of its selector."""
        return self._slices.get(name, ())

    def node(self) -> Node:
        """As of the last `take`."""
        return self._node

    def protected(self, name: NamespacedName) -> bool:
        """Whether part of it cannot be read and never could: there may be more of it in the table."""
        return self.settled is not None and self.settled.protected(name) and name not in self._whole

    def problems(self) -> list[Problem]:
        """What is wrong with the manifests, and what could not be given."""
        return self.settled.problems if self.settled else []

    def warnings(self) -> list[Problem]:
        """What services and pods do not agree on, and what cannot be probed."""
        return self.settled.warnings if self.settled else []

    def refresh(self) -> None:
        """Read all files again, those as well that seem to be the same."""
        self._reader, self._unread = Reader(self._paths), True

    def take_triggers(self) -> Collection[str]:
        """None: manifests do not say when something happened."""
        return ()

    def statuses(self) -> Mapping[NamespacedName, PodReadiness]:
        """What probes found, by pod."""
        return self._prober.statuses() if self._prober else {}

    def _read(self) -> Decoded:
        if self._decoded is not None and not self._unread:
            return self._decoded
        self._unread = False
        documents, unread = read = self._reader.read()
        if self._decoded is None or self._read_before is None or not _same(read, self._read_before):
            decoded = decode(documents)
            decoded.unreadable.everything |= bool(unread)
            self._decoded = decoded._replace(problems=unread + decoded.problems)
            self._read_before = read
        return self._decoded

    def _settle(
        self,
        decoded: Decoded,
        node: Node,
        statuses: Mapping[NamespacedName, PodReadiness],
        remembered: Mapping[tuple[NamespacedName, str], bool],
    ) -> set[NamespacedName]:
        self._tell(statuses)
        state = with_readiness(decoded.state, statuses)
        settled = settle(decoded._replace(state=state), self._held, self._ranges, node)
        unprobed = not_probed(pod for pod in state.pods if pod.node in ("", node.name))
        settled = settled._replace(warnings=settled.warnings + unprobed)
        self._store.save(self._held, settled.allocations)
        self._held = settled.allocations
        self._remember({Watched(*key): ready for key, ready in remembered.items()})
        self.state, self.settled, self._node = state, settled, node
        names = settled.services.keys() | self._services.keys()
        return {name for name in names if self._replace(name, settled)}

    def _tell(self, statuses: Mapping[NamespacedName, PodReadiness]) -> None:
        """Log who became ready, and who is not, and why, as soon as that is known."""
        told: dict[NamespacedName, str] = {}
        for name, found in statuses.items():
            why = "" if found.ready else why_not(found)
            told[name] = why if why in ("", NOT_PROBED) else "failing"  # in whatever words, each time others
            if told[name] != self._told.get(name):
                logger.info("Pod %s is %s", name, f"not ready: {why}" if why else "ready")
        self._told = told

    def _remember(self, ready: dict[Watched, bool]) -> None:
        changed: dict[Watched, bool | None] = dict.fromkeys(self._remembered.keys() - ready.keys())
        changed.update(item for item in ready.items() if self._remembered.get(item[0]) is not item[1])
        self._store.remember_readiness(changed)
        self._remembered = ready

    def _replace(self, name: NamespacedName, settled: Settled) -> bool:
        """Take over what was settled of one service; whether that is something else."""
        before = self._services.get(name), self._slices.get(name, ())
        after = settled.services.get(name), settled.slices.get(name, ())
        if settled.protected(name):
            after = before if after[0] is None else (after[0], after[1] + _missing(before[1], after[1]))
        elif after[0] is not None:
            self._whole.add(name)
        if after[0] is not None:
            self._services[name], self._slices[name] = after[0], after[1]
        elif before[0] is not None:
            del self._services[name], self._slices[name]
            self._whole.discard(name)
        return before[0] != after[0] or (after[0] is not None and before[1] != after[1])


def _missing(
    before: tuple[EndpointSlice, ...], after: tuple[EndpointSlice, ...]
) -> tuple[EndpointSlice, ...]:
    """What `before` has and `after` says nothing of, not even that it is not ready."""
    known = {endpoint.address for slice_ in after for endpoint in slice_.endpoints}
    left = (replace(s, endpoints=tuple(e for e in s.endpoints if e.address not in known)) for s in before)
    return tuple(slice_ for slice_ in left if slice_.endpoints)


def _same(one: tuple[list[Document], list[Problem]], other: tuple[list[Document], list[Problem]]) -> bool:
    """Whether they are the very same documents, as of files that were not parsed again."""
    pairs = list(zip(one[0], other[0], strict=False))
    return len(one[0]) == len(other[0]) and one[1] == other[1] and all(a is b for a, b in pairs)
