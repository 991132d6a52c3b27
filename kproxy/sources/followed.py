"""Files of manifests as the source of `kproxy run`, which follows changes and probes pods.

`Manifests` reads and settles the files. This module notices changes of files, reads them again only
then, and runs the readiness probes of this node's pods, as a kubelet does.
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
    """A `FollowedSource`. In `state`, pods have the readiness that their probes found."""

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
        self._saved: dict[PodIdentity, bool] = {}
        self._logged: dict[NamespacedName, str] = {}

    async def run(self, wake: Callable[[], None]) -> None:
        """Watch the files and probe the pods. Never returns."""
        self._wake = wake
        try:
            async for _ in changes(self._paths):
                self._unread = True
                wake()
        finally:
            if self._prober is not None:
                await self._prober.close()

    async def take(self) -> Collection[NamespacedName]:
        """Read changed files. Raises StateError if allocations or readiness cannot be saved."""
        decoded = await asyncio.to_thread(self._read_changes)
        # In a thread, since it waits for the kernel.
        node = await asyncio.to_thread(self._find_node, decoded.state.nodes)
        if self._prober is None:
            self._saved = await asyncio.to_thread(self._store.readiness)
            earlier = {key.identity: ready for key, ready in self._saved.items()}
            self._prober = Prober(self._runner, self._wake, earlier)
        pods = with_host_addresses(probed_on(decoded.state.pods, node.name), node)
        self._prober.watch(pods, decoded.unreadable.covers)
        statuses, results = self._prober.statuses(), self._prober.results()
        if decoded is self._settled_of and (node, statuses) == self._settled_with:
            return ()  # for example if a route changed that does not matter
        changed = await asyncio.to_thread(self._settle_probed, decoded, node, statuses, results)
        self._settled_of, self._settled_with = decoded, (node, statuses)
        self.revision += 1
        return changed

    def host_changed(self) -> None:
        """Do nothing: each `take` determines the node."""

    def refresh(self) -> None:
        """Read all files again, even those whose timestamps did not change."""
        self._reader, self._unread = Reader(self._paths), True

    def take_triggers(self) -> Collection[str]:
        """Return (): manifests contain no times of events."""
        return ()

    def inventory(self) -> Inventory:
        """Return the inventory of the last `take`, with the present readiness of pods."""
        return replace(super().inventory(), readiness=dict(self.statuses()))

    def statuses(self) -> Mapping[NamespacedName, PodReadiness]:
        """Return the readiness of the probed pods."""
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
        results: Mapping[tuple[NamespacedName, str], bool],
    ) -> Collection[NamespacedName]:
        self._log(statuses)
        state = with_readiness(decoded.state, statuses)
        unsupported = unsupported_probes(pod for pod in state.pods if pod.node in ("", node.name))
        self._save({PodIdentity(*key): ready for key, ready in results.items()})
        return self._settle(decoded._replace(state=state), node, unsupported)

    def _log(self, statuses: Mapping[NamespacedName, PodReadiness]) -> None:
        """Log which pods became ready or not ready, and why."""
        logged: dict[NamespacedName, str] = {}
        for name, found in statuses.items():
            why = "" if found.ready else not_ready_reason(found)
            # The text of a failure may be different each time. Only its begin and end are logged.
            logged[name] = why if why in ("", NOT_PROBED) else "failing"
            if logged[name] != self._logged.get(name):
                logger.info("Pod %s is %s", name, f"not ready: {why}" if why else "ready")
        self._logged = logged

    def _save(self, ready: dict[PodIdentity, bool]) -> None:
        changed: dict[PodIdentity, bool | None] = dict.fromkeys(self._saved.keys() - ready.keys())
        changed.update(item for item in ready.items() if self._saved.get(item[0]) is not item[1])
        self._store.save_readiness(changed)
        self._saved = ready
