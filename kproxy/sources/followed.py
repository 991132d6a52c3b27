"""Files of manifests as the source of `kproxy run`, which follows changes and probes pods.

`Manifests` reads and settles the files. This module notices changes of files, reads them again only
then, and runs the readiness probes of this node's pods, as a kubelet does.

A folder is empty on purpose if its files were deleted while it was followed. In all other cases a path
without objects removes nothing, unless that is allowed: the folder may not be mounted, or the program that
writes a file may have failed.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
from kproxy.problems import ignored_sentence
from kproxy.sources.core.inventory import Inventory
from kproxy.sources.files import Read, Reader
from kproxy.sources.folder import changes
from kproxy.sources.manifests import Manifests
from kproxy.sources.progress import UNSHOWN, Progress
from kproxy.sources.source import Requests
from kproxy.state.store import PodIdentity, Store

if TYPE_CHECKING:
    from kproxy.sources.engines.engine import Engine

logger = logging.getLogger(__name__)
SHORTAGE_SECONDS = 1.0
"""The pause until files are read again that could not be read because this host lacked files or memory."""


class FollowedManifests(Manifests):
    """A `FollowedSource`. In `state`, pods have the readiness that their probes found."""

    synced = True
    """The first `take` reads everything."""
    revision = 0
    credentials = ""

    def __init__(
        self,
        paths: Sequence[str],
        store: Store,
        ranges: Ranges,
        find_node: Callable[[Mapping[str, ClusterNode]], Node],
        runner: Runner,
        recursive: bool = False,
        allow_empty: bool = False,
        engines: Sequence[Engine] = (),
    ) -> None:
        """`runner` runs the commands of exec probes. `allow_empty`: paths without objects remove services."""
        super().__init__(paths, store, ranges, find_node, recursive, pipes=False, engines=engines)
        self._runner = runner
        self._allow_empty = allow_empty
        self._ignored: Mapping[str, int] = {}
        self._noted: list[str] = []
        self._folders: dict[str, tuple[int, int]] = {}
        """Of folders: device and inode when they last had objects."""
        self._unread: list[frozenset[Path] | None] = [None]
        """The files that may have changed, by notification; None stands for all files."""
        self._wake: Callable[[], None] = lambda: None
        self._later = 0.0
        """The time at which all files will be read again, in the event loop's clock."""
        self._settled_of: Decoded | None = None
        self._settled_with: tuple[Node, Mapping[NamespacedName, PodReadiness]] | None = None
        self._prober: Prober | None = None
        self._saved: dict[PodIdentity, bool] = {}
        self._logged: dict[NamespacedName, str] = {}

    async def run(self, wake: Callable[[], None]) -> None:
        """Watch the files and the containers, and probe the pods. Never returns."""
        self._wake = wake
        try:
            await asyncio.gather(
                self._watch_files(),
                *(engine.follow(partial(self.changed, frozenset())) for engine in self._engines),
            )
        finally:
            self._reader.end()
            if self._prober is not None:
                await self._prober.close()

    async def _watch_files(self) -> None:
        async for named in changes(self._paths, self._recursive):
            self.changed(named)

    def changed(self, named: frozenset[Path] | None) -> None:
        """Read these files again in the next `take`; None stands for all files. Calls `wake`."""
        self._unread.append(named)
        self._wake()

    async def take(self) -> Collection[NamespacedName]:
        """Read changed files. Raises StateError if allocations or readiness cannot be saved."""
        if self._decoded is None:
            await self._ask_engines()
        decoded = await asyncio.to_thread(self._read_changes)
        self._read_later()
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
        self._log_notes()
        self.revision += 1
        return changed

    def _read_later(self) -> None:
        """Read all files again after a pause, if this host lacked files or memory for that."""
        loop = asyncio.get_running_loop()
        if self._reader.lacking and self._later <= loop.time():
            self._later = loop.time() + SHORTAGE_SECONDS
            loop.call_at(self._later, self.changed, None)

    def host_changed(self) -> None:
        """Do nothing: each `take` determines the node."""

    def refresh(self) -> None:
        """Read all files again, even those whose timestamps did not change."""
        self._reader = Reader(self._paths, self._recursive, False)
        self._unread.append(None)

    def take_triggers(self) -> Collection[str]:
        """Return (): manifests contain no times of events."""
        return ()

    def last_seen(self) -> Mapping[str, float]:
        """Return {}: there is no connection to an API server."""
        return {}

    def requests(self) -> Requests:
        """Return {}, because no API server is asked."""
        return {}

    def inventory(self) -> Inventory:
        """Return the inventory of the last `take`, with the present readiness of pods."""
        return replace(super().inventory(), readiness=dict(self.statuses()))

    def statuses(self) -> Mapping[NamespacedName, PodReadiness]:
        """Return the readiness of the probed pods."""
        return self._prober.statuses() if self._prober else {}

    def _read_changes(self) -> Decoded:
        before = self._decoded
        if before is not None and not self._unread:
            return before
        unread = [self._unread.pop() for _ in range(len(self._unread))]
        named = {file for files in unread for file in files or ()}
        decoded = self._read(named=None if None in unread else named)
        if decoded is not before:
            self._log_ignored(decoded.ignored)
            if not self._allow_empty:
                decoded.unreadable.empty = self.empty
                self._log_empty()
        return decoded

    def _read(self, progress: Progress = UNSHOWN, named: Collection[Path] | None = None) -> Decoded:
        counts = self._decoded.counts if self._decoded else None
        decoded = super()._read(progress, named)
        assert self._read_before is not None
        if decoded.counts is not counts and decoded.has_used:
            for path, sources in self._read_before.sources.items():
                if any(decoded.counts[source] for source in sources) and (folder := _folder(path)):
                    self._folders[path] = folder
        return decoded

    def _is_emptied(self, path: str, read: Read) -> bool:
        """Whether it is a folder that had objects, and its files were deleted or contain empty Lists."""
        documents = {document.source for document in read.documents}
        folder = self._folders.get(path)
        return folder is not None and folder == _folder(path) and documents.issuperset(read.sources[path])

    def _log_empty(self) -> None:
        level = logging.WARNING if self._in_use.services else logging.INFO
        for sentence in self.empty:
            logger.log(level, "%s; nothing is removed without --allow-empty", sentence)

    def _log_ignored(self, kinds: Mapping[str, int]) -> None:
        if kinds and kinds != self._ignored:
            logger.info(ignored_sentence(kinds))
        self._ignored = kinds

    def _log_notes(self) -> None:
        for note in self.notes():
            if note not in self._noted:
                logger.info(note)
        self._noted = self.notes()

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
        return self._settle(replace(decoded, state=state), node, unsupported)

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
        self._store.save_readiness(self._saved, ready)
        self._saved = ready


def _folder(path: str) -> tuple[int, int] | None:
    """Return the device and the inode of a folder; None if there is no folder."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None
