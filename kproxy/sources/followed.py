"""Files of manifests as the source of a daemon: they are followed, and the pods in them are probed.

`Manifests` reads and settles them. Added here: notice when files change, run the readiness probes of this
node's pods as a kubelet does, and read again only when a file changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec.structs import replace

from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.slices import with_host_addresses
from kproxy.decode import Decoded
from kproxy.model import ClusterNode, NamespacedName, Node
from kproxy.probes.core.readiness import (
    NOT_PROBED,
    PodReadiness,
    not_ready_reason,
    probed_on,
    unsupported_probes,
    with_readiness,
)
from kproxy.probes.prober import Prober, Runner
from kproxy.sources.core.inventory import Inventory
from kproxy.sources.files import Reader
from kproxy.sources.folder import changes
from kproxy.sources.manifests import Manifests
from kproxy.state.store import PodIdentity, Store

logger = logging.getLogger(__name__)


class FollowedManifests(Manifests):
    """A `FollowedSource`. In `state`, pods are as ready as their probes found them."""

    synced = True
    """The first `take` reads everything."""
    revision = 0

    def __init__(
        self,
        paths: Sequence[str],
        store: Store,
        ranges: Ranges,
        find_node: Callable[[Mapping[str, ClusterNode]], Node],
        runner: Runner,
    ) -> None:
        """`runner` runs the commands of exec probes."""
        super().__init__(paths, store, ranges, find_node)
        self._runner = runner
        self._unread = True
        self._wake: Callable[[], None] = lambda: None
        self._settled_of: Decoded | None = None
        self._settled_with: tuple[Node, Mapping[NamespacedName, PodReadiness]] | None = None
        self._prober: Prober | None = None
        self._remembered: dict[PodIdentity, bool] = {}
        self._told: dict[NamespacedName, str] = {}

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
        """Read what changed; StateError: allocations or readiness cannot be saved."""
        decoded = await asyncio.to_thread(self._read_changes)
        node = await asyncio.to_thread(self._find_node, decoded.state.nodes)  # pyroute2 wants no loop
        if self._prober is None:
            self._remembered = await asyncio.to_thread(self._store.readiness)
            known = {watched.identity: ready for watched, ready in self._remembered.items()}
            self._prober = Prober(self._runner, self._wake, known)
        pods = with_host_addresses(probed_on(decoded.state.pods, node.name), node)
        self._prober.watch(pods, decoded.unreadable.covers)
        statuses, remembered = self._prober.statuses(), self._prober.results()
        if decoded is self._settled_of and (node, statuses) == self._settled_with:
            return ()  # somebody's routes changed, say
        changed = await asyncio.to_thread(self._settle_probed, decoded, node, statuses, remembered)
        self._settled_of, self._settled_with = decoded, (node, statuses)
        self.revision += 1
        return changed

    def host_changed(self) -> None:
        """Nothing: each `take` finds the node anew."""

    def refresh(self) -> None:
        """Read all files again, those as well that seem to be the same."""
        self._reader, self._unread = Reader(self._paths), True

    def take_triggers(self) -> Collection[str]:
        """None: manifests do not say when something happened."""
        return ()

    def inventory(self) -> Inventory:
        """As of the last `take`, with what the probes have found since."""
        return replace(super().inventory(), readiness=dict(self.statuses()))

    def statuses(self) -> Mapping[NamespacedName, PodReadiness]:
        """What probes found, by pod."""
        return self._prober.statuses() if self._prober else {}

    def _read_changes(self) -> Decoded:
        if self._decoded is not None and not self._unread:
            return self._decoded
        self._unread = False
        return self._read()

    def _settle_probed(
        self,
        decoded: Decoded,
        node: Node,
        statuses: Mapping[NamespacedName, PodReadiness],
        remembered: Mapping[tuple[NamespacedName, str], bool],
    ) -> Collection[NamespacedName]:
        self._tell(statuses)
        state = with_readiness(decoded.state, statuses)
        unprobed = unsupported_probes(pod for pod in state.pods if pod.node in ("", node.name))
        self._remember({PodIdentity(*key): ready for key, ready in remembered.items()})
        return self._settle(decoded._replace(state=state), node, unprobed)

    def _tell(self, statuses: Mapping[NamespacedName, PodReadiness]) -> None:
        """Log which pods became ready, and which are not, and why, as soon as that is known."""
        told: dict[NamespacedName, str] = {}
        for name, found in statuses.items():
            why = "" if found.ready else not_ready_reason(found)
            told[name] = why if why in ("", NOT_PROBED) else "failing"  # in whatever words, each time others
            if told[name] != self._told.get(name):
                logger.info("Pod %s is %s", name, f"not ready: {why}" if why else "ready")
        self._told = told

    def _remember(self, ready: dict[PodIdentity, bool]) -> None:
        changed: dict[PodIdentity, bool | None] = dict.fromkeys(self._remembered.keys() - ready.keys())
        changed.update(item for item in ready.items() if self._remembered.get(item[0]) is not item[1])
        self._store.save_readiness(changed)
        self._remembered = ready
