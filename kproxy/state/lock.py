"""The lock of a state directory, which only one process at a time may use, and the modes of its files.

It is a lock of the kernel (flock), so it ends with its process. The content of the file only
names the holder: verb and process id. A process that finds the lock held waits a limited time for
a verb that ends by itself, but not for `kproxy run`.

Any process that can open a file can lock it. So only its owner can open kproxy's files, and files
that other users made are refused.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kproxy.problems import StateError

FILE = "lock"
DATABASE = "allocations.sqlite"
NEW_DATABASE = f"{DATABASE}.new"
"""The name of the database until its first content is on disk."""
FILES = (DATABASE, f"{DATABASE}-journal", NEW_DATABASE, f"{NEW_DATABASE}-journal", FILE)
PRIVATE = 0o600
"""The mode of kproxy's files."""
DAEMON = "run"
"""The verb that holds the lock until it is stopped."""
RETRY_INTERVAL = 0.05
"""Seconds between two attempts to get a lock that another process holds."""
NOTICE, LONGEST = 1.0, 60.0
"""Seconds of waiting for a lock after which this is a warning, and after which it is an error."""
SIGNATURE = 32
"""Bytes of the lock file that name the holder, in one line. Shorter names are followed by spaces."""
WRITABLE = "kproxy needs read and write access to it. --state-dir selects another directory."
NOT_OURS = "Remove it, or select another directory with --state-dir."


def state_error(path: Path, message: str, remedy: str = WRITABLE) -> StateError:
    """Return an error that names the file, the error and the remedy."""
    return StateError(f"{path}: {message}.", f"{remedy} The rules in the kernel are unchanged.")


class Lock:
    """A lock that this process holds."""

    def __init__(self, path: Path, file: int, holder: str) -> None:
        self._path, self._file, self._holder = path, file, holder

    def sign(self) -> None:
        """Write the holder's name into the file."""
        _sign(self._file, self._holder)

    def renew(self) -> str:
        """Create the file again, with its directory, if another program removed it. Raises StateError.

        Returns a warning if it did so, otherwise "". If another process has locked a new file, nothing
        changes.
        """
        if _is_at(self._path, self._file):
            return ""
        file = _open(self._path)
        if not (_try_lock(file) and _is_at(self._path, file)):
            os.close(file)
            return ""
        os.close(self._file)
        self._file = file
        self.sign()
        return f"{self._path} was removed: kproxy creates it again"

    def release(self) -> None:
        """End the lock. No name stays in the file."""
        _sign(self._file, "")
        self.close()

    def close(self) -> None:
        """End the lock."""
        os.close(self._file)


@contextmanager
def hold(directory: Path, verb: str, warn: Callable[[str], None]) -> Iterator[Lock]:
    """Hold the lock of a state directory, which is created if it does not exist.

    `warn` is called if this takes long, with a sentence that names the present holder.

    Raises StateError immediately if `kproxy run` holds the lock, or if the file cannot be locked; after a
    minute if another process holds it.
    """
    path = directory / FILE
    held = Lock(path, _acquire(path, warn), f"{verb} {os.getpid()}")
    try:
        for name in FILES:
            _make_private(directory / name)
        held.sign()
        yield held
    except BaseException:
        held.close()
        raise
    held.release()


def holder_of(path: Path) -> str:
    """Return `process 123 (sync)` for the process that has locked a file; "" if it is unknown."""
    with suppress(OSError, ValueError):
        inode = f":{path.stat().st_ino}"
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "->" in words or not words[5].endswith(inode):
                continue
            if int(words[4]) not in (0, -1, os.getpid()):  # 0, -1: of another namespace of processes
                command = Path(f"/proc/{words[4]}/comm").read_text(errors="replace").strip()
                return f"process {words[4]} ({command})"
    return ""


def _is_at(path: Path, file: int) -> bool:
    """Whether an open file is still at this path."""
    try:
        return path.stat().st_ino == os.fstat(file).st_ino
    except OSError:
        return False


def _acquire(path: Path, warn: Callable[[str], None]) -> int:
    begun, seen, noticed = time.monotonic(), "", False
    while True:
        file = _open(path)
        if _try_lock(file) and _is_at(path, file):
            return file
        signed = os.pread(file, SIGNATURE, 0).decode("ascii", "replace").strip()
        os.close(file)
        verb, _, process = signed.partition(" ")
        # Two attempts must find the same holder: until the next holder signs, the file may still contain
        # the name of a daemon that was killed.
        if verb == DAEMON and signed == seen:
            message = f"in use by `kproxy {DAEMON}` (process {process})"
            raise state_error(path, message, "Stop that process first.")
        seen, waited = signed, time.monotonic() - begun
        if waited > LONGEST:
            message = f"locked by {_holder(path, signed)} for more than {LONGEST:.0f} s"
            raise state_error(path, message, "Wait for that process, or end it.")
        if waited > NOTICE and not noticed:
            warn(f"{path}: waiting for {_holder(path, signed)}")
            noticed = True
        time.sleep(RETRY_INTERVAL)


def _holder(path: Path, signed: str) -> str:
    verb, _, process = signed.partition(" ")
    return holder_of(path) or (f"`kproxy {verb}` (process {process})" if verb else "another process")


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        check_own(path)
        return os.open(path, flags, PRIVATE)
    except OSError as error:
        raise state_error(path, error.strerror or str(error)) from None


def check_own(path: Path) -> None:
    """Raise StateError if there is anything but a regular file of this user or root, with this name only.

    A link could lead to any file. Raises OSError if it cannot be examined.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a file of its own"
        raise state_error(path, f"is {kind}", NOT_OURS)
    if status.st_uid not in (0, os.geteuid()):
        raise state_error(path, f"belongs to another user (uid {status.st_uid})", NOT_OURS)


def _make_private(path: Path) -> None:
    """Take the rights of other users to a file, which may be of an older version. It need not exist."""
    try:
        check_own(path)
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & ~PRIVATE:
            path.chmod(PRIVATE)
    except OSError as error:
        raise state_error(path, error.strerror or str(error)) from None


def _sign(file: int, holder: str) -> None:
    """Write the holder's name. Errors are ignored: on a full disk, a verb may have nothing else to write."""
    with suppress(OSError):
        os.pwrite(file, f"{holder:<{SIGNATURE - 1}}\n".encode(), 0)
