"""Wait until manifests change, through the kernel's notifications (inotify).

A change usually consists of several steps: an editor writes a file under another name and renames
it, a ConfigMap volume replaces a symbolic link, `cp` writes files one by one. So a change is
reported when there have been no events for a moment. Events of files that are not manifests are
reported, too; the reader then finds that no timestamp changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from errno import EMFILE, ENOSPC
from pathlib import Path

from asyncinotify import Event, Inotify, Mask

from kproxy.sources.files import shown, subfolders

logger = logging.getLogger(__name__)

QUIET, LONGEST = 0.05, 1.0
"""Seconds without events after which a change is complete, and the maximum delay of its report."""
POLL, SELDOM = 2.0, 60.0
"""Seconds between reports without events: if a path cannot be watched, and if all can.

The latter is needed because network file systems send no events for changes on other hosts.
"""
LIMITS = {EMFILE: "fs.inotify.max_user_instances", ENOSPC: "fs.inotify.max_user_watches"}
"""The sysctls behind errors of inotify."""
EVENTS = (
    Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE
    | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ATTRIB | Mask.ONLYDIR
)  # fmt: skip


async def changes(
    paths: Iterable[str], recursive: bool = False
) -> AsyncGenerator[frozenset[Path] | None, None]:
    """Yield once at the beginning, and then whenever something may have changed. Never ends.

    It yields the files that may have changed since the last time; None if any file may have.
    `recursive`: also if something in a subfolder may have changed.
    """
    wanted, polling = {Path(path) for path in paths}, _Polling()
    while True:
        try:
            inotify = Inotify()
        except OSError as error:
            polling.log("files", error)
            yield None
            await asyncio.sleep(POLL)
            continue
        with inotify:
            # In a thread: there may be thousands of folders, and a file server may not respond.
            folders = await asyncio.to_thread(_Folders, wanted, recursive)
            complete = await asyncio.to_thread(folders.watch, inotify, polling) and folders.complete
            yield None  # after the watches are set up, so that no change from here on is missed
            timeout = SELDOM if complete else POLL
            async with aclosing(_Events(inotify)) as events:
                while named := await _next(events, wanted | folders.below, timeout):
                    yield named


class _Polling:
    """Logs why files are looked at in intervals: a limit of this host once, other reasons for debugging.

    Those others concern a path, for example a folder that does not exist, which its reader reports.
    """

    def __init__(self) -> None:
        self._limits = dict(LIMITS)

    def log(self, what: str, error: OSError) -> None:
        """Log that something cannot be watched."""
        limit = self._limits.pop(error.errno or 0, None)
        hint = f"; raise {limit} for faster updates" if limit else ""
        message = "cannot watch %s: %s; looking for changes every %g s%s"
        logger.log(logging.WARNING if limit else logging.DEBUG, message, what, error.strerror, POLL, hint)


class _Folders:
    """The folders to watch: those among the paths with their subfolders, and the parents of the paths."""

    def __init__(self, paths: set[Path], recursive: bool) -> None:
        self.below: set[Path] = set()
        """The subfolders."""
        self.complete = True
        """Whether all could be listed."""
        self._paths = {path.parent for path in paths}
        for path in paths:
            try:
                self._paths.update({path} if path.is_dir() else ())
                self.below.update(subfolders(path) if recursive else ())
            except OSError as error:  # for example a network file system that is unreachable
                self.complete = False
                logger.debug("cannot access %s: %s", path, error.strerror)

    def watch(self, inotify: Inotify, polling: _Polling) -> bool:
        """Add a watch for each folder. Returns whether all could be watched."""
        complete = True
        for folder in sorted(self._paths | self.below):
            try:
                inotify.add_watch(folder, EVENTS)
            except OSError as error:
                complete = False
                polling.log(shown(folder), error)
        return complete


class _Events:
    """The events of inotify. A wait that ends without one loses none.

    `Inotify.get` loses the events that it has read if it is cancelled in the same turn of the event loop.
    """

    def __init__(self, inotify: Inotify) -> None:
        self._inotify = inotify
        self._next: asyncio.Task[Event] | None = None

    async def next(self, timeout: float) -> Event | None:
        """Return the next event; None if there is none within `timeout` seconds."""
        if self._next is None:
            self._next = asyncio.create_task(self._inotify.get())
        done, _ = await asyncio.wait((self._next,), timeout=timeout)
        if not done:
            return None
        event, self._next = self._next.result(), None
        return event

    async def aclose(self) -> None:
        """Stop waiting."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait((self._next,))


async def _next(events: _Events, paths: set[Path], timeout: float) -> frozenset[Path]:
    """Wait for an event, at most `timeout` seconds, and then until there are no more events.

    Returns the files that may have changed; none if all may have, or other folders have to be watched.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeout
    while (event := await events.next(max(0.0, end - clock()))) and not _concerns(event, paths):
        pass
    found, latest = [], clock() + LONGEST
    while event:
        found.append(event)
        event = await events.next(min(QUIET, latest - clock())) if clock() < latest else None
    concern = [event for event in found if _concerns(event, paths)]
    if any(_is_of_folder(event, paths) for event in concern):
        return frozenset()
    return frozenset(event.path for event in concern if event.path is not None)


def _is_of_folder(event: Event, paths: set[Path]) -> bool:
    """Whether an event concerns a folder, or is one of the kernel's that names no file."""
    is_folder = bool(event.mask & Mask.ISDIR) or event.watch is None or event.name is None
    return is_folder or event.path is None or (event.path in paths and event.path.is_dir())


def _concerns(event: Event, paths: set[Path]) -> bool:
    """Whether an event concerns one of `paths` or a file in it. Other files in the parent folder do not."""
    folder = event.watch.path if event.watch else None
    return folder is None or folder in paths or event.path in paths or event.name is None
