"""Random events of all kinds: each time the events pause, the tables become correct.

It takes half a minute in the suite. `make test-long` runs it for KPROXY_LONG_MINUTES (default 30), and then
also checks for leaks: memory, file descriptors, child processes.
"""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from netns_lab.lab import Lab

from tests.stories.chaos import Chaos
from tests.stories.doubled import doubled
from tests.support import EDITABLE, eventually

pytestmark = pytest.mark.lab

SHORT = 10.0
MINUTES = float(os.environ.get("KPROXY_LONG_MINUTES", "30"))
SEED = int(os.environ.get("KPROXY_LONG_SEED", "0")) or random.randrange(1, 1_000_000)
QUIET_PATIENCE = 120.0
WARM_UP = 0.2
"""Part of the time in which memory may still grow; the use after it is normal."""
LISTEN = "0A"  # TCP_LISTEN, as in /proc/net/tcp
BAND = 8 << 10
"""KiB that memory may grow after the warm-up."""


class Size(NamedTuple):
    """The resources of a process."""

    memory: int
    """Anonymous memory in KiB, which is not shared with any file."""
    files: int
    """Without listening sockets: Services with health check node ports are added and removed."""
    children: int
    zombies: int


def size(pid: int) -> Size:
    """Return the resources of a running process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    children = [
        fields[0]
        for stat in Path("/proc").glob("[0-9]*/stat")
        if (fields := _stat(stat)) and fields[1] == str(pid)
    ]
    return Size(
        int(status["RssAnon"].split()[0]),
        len(_files(pid)),
        len(children),
        children.count("Z"),
    )


def _files(pid: int) -> list[str]:
    """Return the open files, without listening sockets."""
    tables = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6"))
    rows = map(str.split, tables.splitlines())
    listening = {f"socket:[{row[9]}]" for row in rows if row[3] == LISTEN}
    found = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(file.readlink()))
    return [target for target in found if target not in listening]


def _stat(path: Path) -> list[str]:
    try:
        return path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def run(chaos: Chaos, seconds: float, acts: int) -> list[Size]:
    """Alternate between events and pauses. Returns the size of kproxy at each pause."""
    found: list[Size] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(chaos.chance.randint(1, acts)):
            chaos.act()
            if chaos.chance.random() < 0.5:
                time.sleep(chaos.chance.uniform(0, 0.05))
        pause(chaos)
        found.append(size(chaos.running.process.pid))
    return found


def pause(chaos: Chaos) -> None:
    """Stop the events. The tables become correct, which is also tested with packets."""
    chaos.calm()
    following = chaos.following
    try:
        following.converges(QUIET_PATIENCE)
        if chaos.web:
            for family in (4, 6):
                assert following.answering(family) == set(chaos.web)
        assert chaos.running.process.poll() is None
        assert "Traceback" not in chaos.running.logged()
    except AssertionError as error:
        raise AssertionError(f"after {chaos.done[-60:]}: {error}") from None


@pytest.mark.parametrize("kills", [True, False])
def test_random_events(lab: Lab, tmp_path: Path, kills: bool) -> None:
    with doubled(lab, tmp_path, flags=() if kills else EDITABLE) as story:
        found = run(Chaos(story, 7, kills), SHORT, 25)
        assert found
        assert all(size.zombies == 0 for size in found)


@pytest.mark.long
@pytest.mark.parametrize("kills", [True, False], ids=["kills", "lives"])
def test_random_events_for_a_long_time(
    lab: Lab, tmp_path: Path, kills: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a third of the time, kproxy is killed sometimes. For the rest it runs, and must not grow."""
    seconds = 60 * MINUTES * (1 / 3 if kills else 2 / 3)
    with doubled(lab, tmp_path, flags=() if kills else EDITABLE) as story:
        chaos = Chaos(story, SEED, kills)
        found = run(chaos, seconds, 60)
        (tmp_path / "sizes").write_text("\n".join(map(str, found)))
        warm = found[int(len(found) * WARM_UP) :]
        with capsys.disabled():
            print(f"\nseed {SEED}: {len(chaos.done)} events, {len(found)} pauses; {warm[0]} ... {warm[-1]}")
        assert all(size.zombies == 0 for size in found)
        if not kills:
            assert max(size.files for size in warm) <= warm[0].files + 8
            assert {size.children for size in warm} == {0}
            third = len(warm) // 3
            late = min(size.memory for size in warm[-third:])
            assert late <= max(size.memory for size in warm[:third]) + BAND, warm
        assert story.running.stop(signal.SIGTERM) == 0
        eventually(lambda: not story.truth.wrong(story.objects()))
