"""Allocations that outlive a sync: SQLite under --state-dir, one transaction per change.

A second process that writes waits for the first (`lock`). Effects live here; what to
allocate is decided in standalone/allocate.py.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from kproxy.model import NamespacedName
from kproxy.problems import StateError
from kproxy.standalone.allocate import Claim, Resource

_SCHEMA = """
CREATE TABLE IF NOT EXISTS allocations (
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL,  -- text: an IPv6 address does not fit SQLite's integers
    PRIMARY KEY (namespace, service, what), UNIQUE (kind, value)
)
"""
DATABASE = "allocations.sqlite"
LOCK = "lock"


class Store:
    """The state directory. Every error becomes a StateError that names the file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / DATABASE

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until no other kproxy works on this state, and hold it; makes the directory."""
        path = self.directory / LOCK
        while True:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                file = path.open("w")
            except OSError as error:
                raise self._error(path, error.strerror or str(error)) from None
            with file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    yield
                    return

    def load(self) -> dict[Claim, Resource]:
        """What was given out; {} if there is no state yet."""
        try:
            if not self.path.exists():
                return {}
            # "rw": a save that was killed is rolled back first, where the file can be written.
            with closing(self._connect("rw")) as database:
                if not database.execute("SELECT name FROM sqlite_master").fetchall():
                    return {}
                rows = database.execute("SELECT namespace, service, what, kind, value FROM allocations")
                return {
                    Claim(NamespacedName(namespace, service), what): Resource(kind, int(value))
                    for namespace, service, what, kind, value in rows
                }
        except (sqlite3.Error, OSError, ValueError) as error:
            raise self._error(self.path, str(error)) from None

    def save(self, before: Mapping[Claim, Resource], after: Mapping[Claim, Resource]) -> None:
        """Replace `before` by `after`, all or nothing, on disk when this returns."""
        gone = [claim for claim, resource in before.items() if after.get(claim) != resource]
        new = [(claim, resource) for claim, resource in after.items() if before.get(claim) != resource]
        if not gone and not new:
            return
        try:
            with closing(self._connect("rwc")) as database, database:
                database.execute(_SCHEMA)
                database.executemany(
                    "DELETE FROM allocations WHERE namespace = ? AND service = ? AND what = ?",
                    ((*claim.service, claim.what) for claim in gone),
                )
                database.executemany(
                    "INSERT INTO allocations VALUES (?, ?, ?, ?, ?)",
                    ((*claim.service, claim.what, r.kind, str(r.value)) for claim, r in new),
                )
        except sqlite3.Error as error:
            raise self._error(self.path, str(error)) from None

    def remove(self) -> list[Path]:
        """Delete every file of ours, and the directory if that leaves it empty; what was deleted.

        For who holds the lock; who waits for it finds its file gone and makes another.
        """
        names = [DATABASE, f"{DATABASE}-journal", LOCK]
        removed = [path for name in names if (path := self.directory / name).exists()]
        try:
            for path in removed:
                path.unlink()
            if removed and not any(self.directory.iterdir()):
                self.directory.rmdir()
        except OSError as error:
            raise self._error(self.directory, error.strerror or str(error)) from None
        return removed

    def _connect(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=30)

    @staticmethod
    def _error(path: Path, message: str) -> StateError:
        return StateError(f"{path}: {message}", "The running dataplane was left as it is. See --state-dir.")
