"""Wait until files of manifests have changed, by the kernel's own notifications (inotify).

Whoever changes files does it in several steps: an editor writes a file of another name and renames
it, a ConfigMap switches a symbolic link, `cp` writes a dozen files one by one. So a change is reported
when it has been quiet for a moment. Which files count is not asked here: a change too many costs a
look at time stamps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path

from asyncinotify import Event, Inotify, Mask

logger = logging.getLogger(__name__)

QUIET, LONGEST = 0.05, 1.0
"""Seconds: without an event, a change is complete; at the latest it is reported after so long."""
POLL, SELDOM = 2.0, 60.0
"""Seconds between looks at what cannot be watched, and at what can: a network's disk tells no events."""
EVENTS = (
    Mask.CREATE | Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE
    | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ATTRIB | Mask.ONLYDIR
)  # fmt: skip


async def changes(paths: Iterable[str]) -> AsyncIterator[None]:
    """Yield once at the beginning, and then whenever something may have changed; never ends."""
    wanted = {Path(path) for path in paths}
    while True:
        try:
            inotify = Inotify()
        except OSError as error:  # the user has too many (fs.inotify.max_user_instances)
            logger.debug("changes of files cannot be watched: %s", error.strerror)
            yield
            await asyncio.sleep(POLL)
            continue
        with inotify:
            complete = _watch(inotify, wanted)
            yield  # with the watch in place: what changes from here on is an event
            await _next(inotify, wanted, SELDOM if complete else POLL)


def _watch(inotify: Inotify, paths: set[Path]) -> bool:
    """Watch the folders among `paths`, and those that contain them; whether that is all that matters."""
    complete = True
    folders = {path.parent for path in paths}
    for path in paths:
        try:
            folders.update({path} if path.is_dir() else ())
        except OSError as error:  # a network's disk that is away
            complete = False
            logger.debug("%s cannot be looked at: %s", path, error.strerror)
    for folder in sorted(folders):
        try:
            inotify.add_watch(folder, EVENTS)
        except OSError as error:
            complete = False
            logger.debug("%s cannot be watched: %s", folder, error.strerror)
    return complete


async def _next(inotify: Inotify, paths: set[Path], patience: float) -> None:
    """Wait for an event, `patience` seconds at most, and then until it is quiet."""
    clock = asyncio.get_running_loop().time
    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while not _concerns(await inotify.get(), paths):
                pass
        latest = clock() + LONGEST
        while (rest := latest - clock()) > 0:
            await asyncio.wait_for(inotify.get(), min(QUIET, rest))


def _concerns(event: Event, paths: set[Path]) -> bool:
    """Whether an event is about one of `paths`, or in one; of their neighbours there are events, too."""
    folder = event.watch.path if event.watch else None
    return folder is None or folder in paths or event.path in paths or event.name is None
