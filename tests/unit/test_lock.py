"""The lock of a state directory: waiting, immediate errors, and killed holders."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kproxy.problems import StateError
from kproxy.state import lock
from tests.unit.nobody import as_nobody

HOLD = """
import sys
from pathlib import Path
from kproxy.problems import StateError
from kproxy.state import lock
try:
    with lock.hold(Path(sys.argv[1]), sys.argv[2], sys.stderr.write):
        print("mine", flush=True)
        sys.stdin.read()
except StateError as error:
    print(error, error.hint, flush=True)
"""


@contextmanager
def process(folder: Path, verb: str = "sync") -> Iterator[subprocess.Popen[str]]:
    """A process that takes the lock, and holds it until its input ends."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(folder), verb]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def says(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def signature(folder: Path) -> str:
    return (folder / "lock").read_text().rstrip()


@pytest.mark.parametrize("second", ["sync", "run", "cleanup"])
def test_a_process_waits_for_a_verb_that_ends_by_itself(tmp_path: Path, second: str) -> None:
    with process(tmp_path) as holder:
        assert says(holder) == "mine\n"
        with process(tmp_path, second) as waiting:
            assert waiting.stdout is not None
            assert select.select([waiting.stdout], [], [], 0.4)[0] == []
            holder.communicate("")
            assert says(waiting) == "mine\n"


@pytest.mark.parametrize("second", ["sync", "run", "cleanup"])
def test_a_process_does_not_wait_for_a_daemon(
    tmp_path: Path, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with process(tmp_path, "run") as daemon:
        assert says(daemon) == "mine\n"
        looks: list[float] = []
        monkeypatch.setattr("kproxy.state.lock.time.sleep", looks.append)
        with pytest.raises(StateError) as caught, lock.hold(tmp_path, second, print):
            pass
        assert len(looks) == 1  # it reads the holder's name twice, and does not wait any longer
    assert str(caught.value) == (f"{tmp_path}/lock: in use by `kproxy run` (process {daemon.pid}).")
    assert caught.value.hint == "Stop that process first. The rules in the kernel are unchanged."


def test_a_waiting_process_does_not_wait_for_a_daemon_either(tmp_path: Path) -> None:
    with process(tmp_path) as holder:
        assert says(holder) == "mine\n"
        with process(tmp_path) as waiting:
            file = tmp_path / "lock"
            file.write_text("run 77\n")  # as if the next one to get the lock were a daemon
            assert "in use by `kproxy run` (process 77)" in says(waiting)


@pytest.mark.parametrize("verb", ["sync", "run"])
def test_a_lock_ends_with_its_process(tmp_path: Path, verb: str) -> None:
    with process(tmp_path, verb) as holder:
        says(holder)
        holder.kill()
        holder.wait()
    assert signature(tmp_path) == f"{verb} {holder.pid}"
    with lock.hold(tmp_path, "sync", print):
        assert signature(tmp_path) == f"sync {os.getpid()}"
    assert signature(tmp_path) == ""


def test_the_name_of_a_killed_daemon_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a new holder has signed, the file contains the name of the previous one."""
    path = tmp_path / "lock"
    path.write_text("run 77\n")
    attempts = []
    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        def sleep(seconds: float) -> None:
            attempts.append(path.read_text())
            path.write_text("sync 78\n")
            if len(attempts) == 3:
                fcntl.flock(held, fcntl.LOCK_UN)

        monkeypatch.setattr("kproxy.state.lock.time.sleep", sleep)
        with lock.hold(tmp_path, "sync", print):
            pass
    assert attempts == ["run 77\n", "sync 78\n", "sync 78\n"]


def test_a_holder_creates_a_removed_lock_file_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with lock.hold(folder, "run", print) as held:
        held.renew()
        shutil.rmtree(folder)
        assert held.renew() == f"{folder}/lock was removed: kproxy creates it again"
        assert held.renew() == ""
        assert signature(folder) == f"run {os.getpid()}"
        with process(folder) as other:
            assert "in use by `kproxy run`" in says(other)
        (folder / "lock").unlink()
        with process(folder) as other:
            assert says(other) == "mine\n"
            held.renew()
            assert signature(folder) == f"sync {other.pid}"
        held.renew()
        assert signature(folder) == f"run {os.getpid()}"
    assert signature(folder) == ""


def test_a_removed_lock_file_is_created_again(tmp_path: Path) -> None:
    with process(tmp_path) as holder:
        assert says(holder) == "mine\n"
        with process(tmp_path) as waiting:
            time.sleep(0.2)
            (tmp_path / "lock").unlink()
            holder.communicate("")
            assert says(waiting) == "mine\n"
            assert signature(tmp_path) == f"sync {waiting.pid}"


def test_a_directory_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StateError, match=r"file/x/lock: (Not a directory|File exists)"),
        lock.hold(tmp_path / "file" / "x", "sync", print),
    ):
        pass


AS_NOBODY = "import os; os.setuid(65534)\n"


@as_nobody
def test_a_directory_of_another_user(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(0o700)
    command = [sys.executable, "-c", AS_NOBODY + HOLD, str(folder), "sync"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Permission denied. kproxy needs read and write access to it" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_a_read_only_directory(tmp_path: Path) -> None:
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    command = [sys.executable, "-c", HOLD, str(tmp_path), "sync"]
    mounted = ["unshare", "--mount", "sh", "-c", script, str(tmp_path), *command]
    done = subprocess.run(mounted, input="", capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        f"{tmp_path}/lock: Read-only file system. kproxy needs read and write access"
    )


def test_the_wait_for_a_lock_ends_with_the_name_of_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(lock, "NOTICE", 0.1)
    monkeypatch.setattr(lock, "LONGEST", 0.3)
    with process(tmp_path) as holder:
        assert says(holder) == "mine\n"
        named = rf"process {holder.pid} \(python"
        with (
            pytest.raises(StateError, match=f"locked by {named}") as caught,
            lock.hold(tmp_path, "sync", warnings.append),
        ):
            pass
    assert "Wait for that process, or end it." in caught.value.hint
    assert [warning.partition(" (")[0] for warning in warnings] == [
        f"{tmp_path}/lock: waiting for process {holder.pid}"
    ]


def make_link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def make_hard_link(path: Path, target: Path) -> None:
    path.hardlink_to(target)


@pytest.mark.parametrize("make", [make_link, make_hard_link])
@pytest.mark.parametrize("name", lock.FILES)
def test_the_target_of_a_link_is_not_touched(
    make: Callable[[Path, Path], None], name: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    make(tmp_path / name, target)
    mode = target.stat().st_mode
    refusal = f"{name}: is (a symbolic link|not a file of its own)"
    with pytest.raises(StateError, match=refusal), lock.hold(tmp_path, "sync", print):
        pass
    assert (target.read_text(), target.stat().st_mode) == ("mine", mode)


@as_nobody
def test_files_of_other_users_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    os.chown(tmp_path / "lock", 65534, 65534)
    refusal = r"lock: belongs to another user \(uid 65534\)"
    with pytest.raises(StateError, match=refusal), lock.hold(tmp_path, "sync", print):
        pass


def test_a_pipe_in_place_of_the_lock_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(StateError, match="is not a file of its own"), lock.hold(tmp_path, "sync", print):
        pass
