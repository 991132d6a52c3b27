"""The state directory: it holds what was saved, says what is wrong with it, and survives what it must."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kproxy.model import NamespacedName
from kproxy.problems import StateError
from kproxy.standalone.allocate import Claim, Resource
from kproxy.standalone.store import DATABASE, LOCK, Store

A, B = Claim(NamespacedName("default", "a"), "ip"), Claim(NamespacedName("default", "b"), "http/tcp")
IP, IP6, PORT = Resource("ip", 1), Resource("ip6", 2**127 + 1), Resource("tcp", 30001)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.mark.parametrize(
    "history",
    [
        [{}],
        [{A: IP}],
        [{A: IP6, B: PORT}],
        [{A: IP}, {A: IP6}, {B: PORT}, {}],
        [{A: IP, B: PORT}, {A: PORT, B: IP}],
    ],
    ids=["nothing", "one", "a large number", "changes", "a swap"],
)
def test_what_is_saved_is_loaded(store: Store, history: list[dict[Claim, Resource]]) -> None:
    before: dict[Claim, Resource] = {}
    for after in history:
        store.save(before, after)
        assert Store(store.directory).load() == after
        before = after


def test_without_state_there_is_nothing(tmp_path: Path) -> None:
    assert Store(tmp_path / "nothing").load() == {}
    assert not (tmp_path / "nothing").exists()


def test_what_does_not_change_is_not_written(store: Store) -> None:
    store.save({}, {})
    assert not store.path.exists()
    store.save({}, {A: IP})
    written = store.path.stat().st_mtime_ns
    store.save({A: IP}, {A: IP})
    assert store.path.stat().st_mtime_ns == written


def test_a_failed_save_changes_nothing(store: Store) -> None:
    store.save({}, {A: IP})
    with pytest.raises(StateError):
        store.save({}, {B: PORT, A: IP6})  # A is there already
    assert store.load() == {A: IP}


@pytest.mark.parametrize(
    "content", [b"nonsense" * 200, b"SQLite format 3\0" + b"\xff" * 4080], ids=["text", "damaged"]
)
def test_a_damaged_database_says_which_file(store: Store, content: bytes) -> None:
    store.path.write_bytes(content)
    for act in (store.load, lambda: store.save({}, {A: IP})):
        with pytest.raises(StateError, match=re.escape(str(store.path))) as caught:
            act()
        assert "--state-dir" in caught.value.hint


def test_a_value_that_is_no_number(store: Store) -> None:
    store.save({}, {A: IP})
    subprocess.run(
        [sys.executable, "-c", SQL, str(store.path), "UPDATE allocations SET value = 'x'"], check=True
    )
    with pytest.raises(StateError, match="invalid literal"):
        store.load()


SQL = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as database:
    database.execute(sys.argv[2])
"""


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StateError, match=r"Not a directory|File exists"),
        Store(tmp_path / "file" / "x").lock(),
    ):
        pass


AS_NOBODY = """
import os, sys
from pathlib import Path
from kproxy.problems import StateError
from kproxy.standalone.store import Store
os.setuid(65534)
store = Store(Path(sys.argv[1]))
try:
    with store.lock():
        pass
except StateError as error:
    print(error, error.hint)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="drops root")
def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(folder)], capture_output=True, text=True, check=True
    )
    assert "Permission denied" in done.stdout
    assert "--state-dir" in done.stdout


HOLD = """
import sys
from pathlib import Path
from kproxy.standalone.store import Store
with Store(Path(sys.argv[1])).lock():
    print("mine", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=pipe, stdout=pipe, text=True)


def test_a_second_process_waits_for_the_first(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "mine\n"
        with holder(tmp_path) as second:
            assert second.stdout is not None
            assert select.select([second.stdout], [], [], 0.4)[0] == []
            first.communicate("")
            assert second.stdout.readline() == "mine\n"
            second.communicate("")


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()
    with Store(tmp_path).lock():
        pass


def test_removal_takes_what_is_ours_and_the_folder_if_it_is_empty_then(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with store.lock():
        store.save({}, {A: IP})
    assert store.remove() == [store.path, store.directory / LOCK]
    assert not store.directory.exists()
    assert store.remove() == []


def test_removal_leaves_what_is_not_ours(store: Store) -> None:
    (store.directory / "other").touch()
    store.save({}, {A: IP})
    store.remove()
    assert [path.name for path in store.directory.iterdir()] == ["other"]


# --- kill -9 ---

KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN")
database.execute("UPDATE allocations SET value = '2'")
for n in range(2000):
    database.execute("INSERT INTO allocations VALUES ('n', ?, 'ip', 'ip', ?)", (str(n), str(1000 + n)))
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_a_transaction(store: Store) -> None:
    """What a process killed between writing pages and committing leaves: a hot journal."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.path)])
    assert done.returncode == -signal.SIGKILL
    assert (store.directory / f"{DATABASE}-journal").stat().st_size


def test_a_save_that_was_killed_is_undone_by_the_next_load(store: Store) -> None:
    store.save({}, {A: IP})
    kill_in_a_transaction(store)
    assert store.load() == {A: IP}


def test_an_empty_database_is_no_state(store: Store) -> None:
    store.path.touch()
    assert store.load() == {}
