"""The state directory: saving, loading, errors and recovery. test_lock.py tests its lock."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from kproxy.controlplane.ledger import NOTHING, Allocations, Claim, Resource
from kproxy.model import NamespacedName
from kproxy.problems import StateError
from kproxy.state import lock
from kproxy.state.lock import DATABASE
from kproxy.state.store import VERSION, PodIdentity, Store
from tests.unit.nobody import as_nobody

A, B = Claim(NamespacedName("default", "a"), "ip"), Claim(NamespacedName("default", "b"), "http/tcp")
IP, IP6, PORT = Resource("ip", 1), Resource("ip6", 2**127 + 1), Resource("tcp", 30001)


def allocations(held: dict[Claim, Resource], released: dict[Resource, Claim] | None = None) -> Allocations:
    return Allocations(held, released or {})


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
def test_saved_allocations_are_loaded(store: Store, history: list[dict[Claim, Resource]]) -> None:
    before = NOTHING
    for held in history:
        after = allocations(held)
        store.save(before, after)
        assert Store(store.directory).load() == after
        before = after


@pytest.mark.parametrize(
    "history",
    [
        [{IP: A}],
        [{IP6: A, IP: A, PORT: B}],
        [{IP6: A, IP: A, PORT: B}, {IP: A, PORT: B}, {IP: A, PORT: B, IP6: B}],
        [{IP: A}, {IP: B}, {}],
    ],
)
def test_released_resources_are_loaded_in_order_of_release(
    store: Store, history: list[dict[Resource, Claim]]
) -> None:
    before = NOTHING
    for released in history:
        store.save(before, before := allocations({}, released))
        loaded = Store(store.directory).load()
        assert list(loaded.released.items()) == list(released.items())
        assert loaded.held == {}


def test_without_state_there_are_no_allocations(tmp_path: Path) -> None:
    assert Store(tmp_path / "nothing").load() == NOTHING
    assert not (tmp_path / "nothing").exists()


def test_nothing_is_written_without_a_change(store: Store) -> None:
    store.save(NOTHING, NOTHING)
    assert not store.path.exists()
    store.save(NOTHING, allocations({A: IP}))
    written = store.path.stat().st_mtime_ns
    store.save(allocations({A: IP}), allocations({A: IP}))
    assert store.path.stat().st_mtime_ns == written


def test_a_failed_save_changes_nothing(store: Store) -> None:
    store.save(NOTHING, allocations({A: IP}))
    with pytest.raises(StateError):
        store.save(NOTHING, allocations({B: PORT, A: IP6}))  # A has a row already
    assert store.load() == allocations({A: IP})


def test_a_failed_first_save_creates_no_database(store: Store) -> None:
    with pytest.raises(StateError):
        store.save(NOTHING, allocations({A: IP, B: IP}))
    assert not store.path.exists()
    store.save(NOTHING, allocations({A: IP}))
    assert store.load() == allocations({A: IP})


@pytest.mark.parametrize(
    "content", [b"nonsense" * 200, b"SQLite format 3\0" + b"\xff" * 4080], ids=["text", "damaged"]
)
def test_the_error_of_a_damaged_database_names_the_file(store: Store, content: bytes) -> None:
    store.path.write_bytes(content)
    for act in (store.load, lambda: store.save(NOTHING, allocations({A: IP}))):
        with pytest.raises(StateError, match=re.escape(str(store.path))) as caught:
            act()
        assert "move it away" in caught.value.hint


def test_a_value_that_is_not_a_number(store: Store) -> None:
    store.save(NOTHING, allocations({A: IP}))
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


def test_a_database_of_a_newer_kproxy_is_not_changed(store: Store) -> None:
    store.save(NOTHING, allocations({A: IP}))
    newer = VERSION + 1
    subprocess.run([sys.executable, "-c", SQL, str(store.path), f"PRAGMA user_version = {newer}"], check=True)
    before = store.path.read_bytes()
    acts = (
        store.load,
        store.readiness,
        lambda: store.save(NOTHING, allocations({B: PORT})),
        lambda: store.save_readiness({}, READY),
    )
    for act in acts:
        with pytest.raises(StateError, match=f"{DATABASE}: has schema version {newer}, of a newer kproxy"):
            act()
    assert store.path.read_bytes() == before


FIRST_SCHEMA = """
CREATE TABLE allocations (
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (namespace, service, what), UNIQUE (kind, value)
)
"""


def test_a_database_without_a_version_is_upgraded(store: Store) -> None:
    for sql in (FIRST_SCHEMA, "INSERT INTO allocations VALUES ('default', 'a', 'ip', 'ip', '1')"):
        subprocess.run([sys.executable, "-c", SQL, str(store.path), sql], check=True)
    assert (store.load(), store.readiness()) == (allocations({A: IP}), {})
    store.save_readiness({}, READY)
    store.save(allocations({A: IP}), allocations({A: IP, B: PORT}))
    assert (store.load(), store.readiness()) == (allocations({A: IP, B: PORT}), READY)


# File systems on which root cannot write either, in a mount namespace.
FILE_SYSTEMS = {
    "read-only": ("mount --bind {0} {0} && mount -o remount,ro,bind {0}", "readonly database", "--state-dir"),
    "full": (
        "mount -t tmpfs -o size=64k none {0} && cp -a {1}/. {0} && dd status=none if=/dev/zero of={0}/x || :",
        "disk is full",
        "Free space on that disk",
    ),
}
SAVE = """
import sys
from pathlib import Path
from kproxy.model import NamespacedName
from kproxy.problems import StateError
from kproxy.controlplane.ledger import Allocations, Claim, Resource
from kproxy.state.store import Store
store = Store(Path(sys.argv[1]))
held = store.load()
new = {Claim(NamespacedName("n", str(n)), "ip"): Resource("ip", 1000 + n) for n in range(2000)}
try:
    store.save(held, Allocations({**held.held, **new}, {}))
except StateError as error:
    print(error, error.hint)
assert store.load() == held
print(len(held.held))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize(("mount", "message", "remedy"), FILE_SYSTEMS.values(), ids=FILE_SYSTEMS)
def test_a_file_system_that_cannot_be_written(tmp_path: Path, mount: str, message: str, remedy: str) -> None:
    state, copy = Store(tmp_path / "state"), tmp_path / "copy"
    with state.lock("sync", print):
        state.save(NOTHING, allocations({A: IP}))
    shutil.copytree(state.directory, copy)
    script = mount.format(state.directory, copy) + ' && exec "$@"'
    command = [sys.executable, "-c", SAVE, str(state.directory)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command], capture_output=True, text=True, check=True
    )
    error, count = done.stdout.splitlines()
    assert error.startswith(f"{state.path}: ")
    assert message in error
    assert remedy in error
    assert "The rules in the kernel are unchanged." in error
    assert count == "1"


POD = NamespacedName("default", "web-1")
UID_1, SIDE = PodIdentity(POD, "uid-1"), PodIdentity(POD, "uid-1/side")
READY = {UID_1: True, SIDE: False}


def test_saved_readiness_is_loaded(store: Store) -> None:
    assert store.readiness() == {}
    store.save_readiness({}, {})
    assert not store.path.exists()
    store.save_readiness({}, READY)
    assert Store(store.directory).readiness() == READY
    store.save_readiness(READY, {UID_1: False})
    assert store.readiness() == {UID_1: False}


def test_readiness_and_allocations_are_independent(store: Store) -> None:
    store.save(NOTHING, allocations({A: IP}))
    store.save_readiness({}, READY)
    store.save(allocations({A: IP}), NOTHING)
    assert (store.load(), store.readiness()) == (NOTHING, READY)


def test_a_database_that_was_removed_is_written_again(store: Store) -> None:
    held = allocations({A: IP})
    store.save(NOTHING, held)
    store.save_readiness({}, READY)
    for _ in range(2):
        store.path.unlink()
        store.save_readiness(READY, READY)
        store.save(held, held)
        assert (store.load(), store.readiness()) == (held, READY)
    store.save(held, allocations({A: IP, B: PORT}))
    store.save_readiness(READY, {})
    assert (store.load(), store.readiness()) == (allocations({A: IP, B: PORT}), {})


def test_removal_deletes_own_files_and_an_empty_directory(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    with store.lock("sync", print):
        store.save(NOTHING, allocations({A: IP}))
    assert store.remove() == [store.path, store.directory / lock.FILE]
    assert not store.directory.exists()
    assert store.remove() == []


def test_removal_keeps_other_files(store: Store) -> None:
    (store.directory / "other").touch()
    store.save(NOTHING, allocations({A: IP}))
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
    """Leave a hot journal: kill a process after it has written pages and before it commits."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.path)])
    assert done.returncode == -signal.SIGKILL
    assert (store.directory / f"{DATABASE}-journal").stat().st_size


def test_an_interrupted_save_is_rolled_back_by_the_next_load(store: Store) -> None:
    store.save(NOTHING, allocations({A: IP}))
    kill_in_a_transaction(store)
    assert store.load() == allocations({A: IP})


def test_a_database_with_a_duplicate_is_damaged(store: Store) -> None:
    store.save(NOTHING, allocations({A: IP}))
    for sql in (
        "CREATE TABLE other AS SELECT * FROM allocations",
        "INSERT INTO other SELECT namespace, 'b', what, kind, value FROM allocations",
        "DROP TABLE allocations",
        "ALTER TABLE other RENAME TO allocations",
    ):
        subprocess.run([sys.executable, "-c", SQL, str(store.path), sql], check=True)
    with pytest.raises(StateError, match="an address or port is allocated twice"):
        store.load()


def test_an_empty_database_has_lost_its_content(store: Store) -> None:
    store.path.touch()
    for act in (store.load, store.readiness, lambda: store.save(NOTHING, allocations({A: IP}))):
        with pytest.raises(StateError, match="is empty: its content was lost") as caught:
            act()
        assert "Restore it from a backup" in caught.value.hint
    assert store.path.stat().st_size == 0


@pytest.mark.parametrize("left", [f"{DATABASE}.new", f"{DATABASE}.new-journal", f"{DATABASE}-journal"])
def test_a_killed_creation_leaves_nothing_that_matters(store: Store, left: str) -> None:
    (store.directory / left).write_bytes(b"half")
    assert store.load() == NOTHING
    store.save(NOTHING, allocations({A: IP}))
    assert store.load() == allocations({A: IP})
    assert [path.name for path in store.directory.iterdir()] == [DATABASE]


@pytest.mark.parametrize(
    "change",
    [
        "kind = 'ipx'",
        "value = '-1'",
        "value = '4294967296'",
        "value = '%s'" % ("9" * 5000),
        "value = x'00'",
        "kind = x'ff'",
        "namespace = CAST(x'ff' AS TEXT)",
    ],
)
def test_a_row_that_kproxy_did_not_write_is_damage(store: Store, change: str) -> None:
    store.save(NOTHING, allocations({A: IP}))
    sql = f"UPDATE allocations SET {change}"
    subprocess.run([sys.executable, "-c", SQL, str(store.path), sql], check=True)
    with pytest.raises(StateError, match=re.escape(str(store.path))):
        store.load()


READ = """
import sqlite3, sys
database = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
database.execute("BEGIN")
database.execute("SELECT * FROM allocations").fetchall()
print("reading", flush=True)
sys.stdin.read()
"""


def test_a_process_that_locks_the_database_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kproxy.state.store.PATIENCE", 0.1)
    store.save(NOTHING, allocations({A: IP}))
    command, pipe = [sys.executable, "-c", READ, str(store.path)], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        with pytest.raises(StateError, match=rf"database is locked by process {reader.pid} \(python"):
            store.save(allocations({A: IP}), NOTHING)
        reader.communicate("")


def test_only_the_owner_can_open_the_files(store: Store) -> None:
    before = os.umask(0)
    try:
        with store.lock("sync", print):
            store.save(NOTHING, allocations({A: IP}))
            files = list(store.directory.iterdir())
        assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
        for path in files:
            path.chmod(0o644)
        with store.lock("sync", print):
            assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600, 0o600]
    finally:
        os.umask(before)


def test_a_database_that_is_a_link_is_refused(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    store.path.symlink_to(target)
    with pytest.raises(StateError, match="is a symbolic link"):
        store.save(NOTHING, allocations({A: IP}))
    assert target.read_text() == "mine"


LOAD_AS_NOBODY = """
import os, sys
from pathlib import Path
from kproxy.state.store import ReadOnlyStore
os.setuid(65534)
store = ReadOnlyStore(Path(sys.argv[1]))
print(len(store.load().held), *store.warnings())
"""


@as_nobody
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_other_users_compute_allocations_anew(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(0o755)
    store = Store(tmp_path / "state")
    with store.lock("sync", print):
        store.save(NOTHING, allocations({A: IP}))
    store.directory.chmod(mode)
    command = [sys.executable, "-c", LOAD_AS_NOBODY, str(store.directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"0 {store.path}: Permission denied: addresses and node ports may differ")
