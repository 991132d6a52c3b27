"""A wait for events of files ends when it is cancelled, also at the moment of an event.

While folders are listed, which may take seconds, other tasks of the event loop run.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from threading import Event

import pytest
from asyncinotify import Inotify

from kproxy.sources.folder import QUIET, changes
from tests.cases import cases
from tests.event_loop import in_event_loop


@asynccontextmanager
async def following(
    path: Path, recursive: bool = False
) -> AsyncIterator[AsyncIterator[frozenset[Path] | None]]:
    """Follow a folder for 30 s at most. The first report, which names no file, has been made."""
    async with asyncio.timeout(30), aclosing(changes([str(path)], recursive)) as found:
        assert await anext(found) is None
        yield found


@pytest.mark.parametrize("moment", [n / 2000 for n in range(20)])
def test_a_cancelled_wait_ends(tmp_path: Path, moment: float) -> None:
    async def watch() -> None:
        async for _ in changes([str(tmp_path)]):
            pass

    async def run() -> None:
        task = asyncio.create_task(watch())
        await asyncio.sleep(0.01)
        for name in ("a.yaml", "b.yaml", "c.yaml"):
            (tmp_path / name).touch()
            await asyncio.sleep(moment)
        (tmp_path / "a.yaml").write_text("x")
        task.cancel()
        async with asyncio.timeout(30):
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def test_an_event_and_a_cancellation_in_one_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def run() -> None:
        waiting: list[asyncio.Future[object]] = []

        async def get(_: Inotify) -> object:
            waiting.append(asyncio.get_running_loop().create_future())
            return await waiting[-1]

        monkeypatch.setattr(Inotify, "get", get)

        async def watch() -> None:
            async for _ in changes([str(tmp_path)]):
                pass

        task = asyncio.create_task(watch())
        event = type("Event", (), {"watch": None, "path": None, "name": None})()
        for number in range(3):
            async with asyncio.timeout(30):
                while len(waiting) <= number:
                    await asyncio.sleep(0)
            waiting[number].set_result(event)
        async with asyncio.timeout(30):
            while len(waiting) <= 3:
                await asyncio.sleep(0)
        waiting[3].set_result(event)
        task.cancel()
        await asyncio.wait([task], timeout=30)
        assert task.cancelled()

    asyncio.run(run())


@in_event_loop
async def test_an_event_at_the_end_of_a_wait_is_not_lost(tmp_path: Path) -> None:
    async with following(tmp_path) as found:
        named = asyncio.ensure_future(anext(found))
        (tmp_path / "a.yaml").touch()
        await asyncio.sleep(QUIET / 2)  # the event of a.yaml is there, and others may follow
        (tmp_path / "b.yaml").touch()
        end = time.monotonic() + 2 * QUIET
        while time.monotonic() < end:
            pass  # the event loop is late: it sees the event and the end of the wait in one turn
        seen = await named
        while seen and tmp_path / "b.yaml" not in seen:
            seen = await anext(found)


@in_event_loop
async def test_changed_files_are_named(tmp_path: Path) -> None:
    async with following(tmp_path) as found:
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / ".new").touch()
            (tmp_path / ".new").rename(tmp_path / name)
            assert await anext(found) == frozenset({tmp_path / ".new", tmp_path / name})
        (tmp_path / "folder").mkdir()
        assert await anext(found) is None


@in_event_loop
async def test_other_tasks_run_while_folders_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = Event()

    def subfolders(_: Path) -> Iterator[Path]:
        assert listed.wait(30), "no other task runs"
        return iter(())

    monkeypatch.setattr("kproxy.sources.folder.subfolders", subfolders)
    asyncio.get_running_loop().call_later(0.01, listed.set)
    async with following(tmp_path, recursive=True):
        pass


@cases(
    """
    method     error   said
    __init__   EMFILE  raise fs.inotify.max_user_instances
    add_watch  ENOSPC  raise fs.inotify.max_user_watches
    add_watch  ENOENT  -
    """
)
@in_event_loop
async def test_a_limit_of_inotify_is_named_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    method: str,
    error: str,
    said: str,
) -> None:
    def fail(*_: object) -> None:
        number = getattr(errno, error)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Inotify, method, fail)
    monkeypatch.setattr("kproxy.sources.folder.POLL", 0.01)
    async with following(tmp_path) as found:
        assert [await anext(found) for _ in range(2)] == [None] * 2  # it looks in intervals
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [said in warning for warning in warnings] == [True] * bool(said)
