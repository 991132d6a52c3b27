"""What outlives a process: SQLite under --state-dir, one transaction per change.

Two things are kept: who was given which address and node port (and what was released),
and which pods were ready when they were last looked at. Effects live here; what to allocate is decided in
controlplane/allocate.py, what is ready by those who look. One process at a time works on
a state directory (state/lock.py); those that only read need no lock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kproxy.controlplane.ledger import Allocations, Claim, Resource
from kproxy.model import NamespacedName
from kproxy.state import lock

K = TypeVar("K")
V = TypeVar("V")

VERSION = 1
"""PRAGMA user_version; 0 is from before there was one. A newer one is refused, missing tables are made."""
_TABLES = {
    "allocations": """
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL,  -- text: an IPv6 address does not fit SQLite's integers
    PRIMARY KEY (namespace, service, what), UNIQUE (kind, value)""",
    "released": """
    place INTEGER PRIMARY KEY AUTOINCREMENT,  -- what was released longest ago has the lowest
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, value)""",
    "readiness": """
    namespace TEXT NOT NULL, pod TEXT NOT NULL, identity TEXT NOT NULL, ready INTEGER NOT NULL,
    PRIMARY KEY (namespace, pod, identity)""",
}
DATABASE = "allocations.sqlite"
DAMAGED = "It is damaged. Restore it from a backup, or move it away: addresses are then allocated anew."
_REMEDIES = {
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_FULL: "Make room there, or choose another --state-dir.",
    sqlite3.SQLITE_IOERR: "Look after the disk that it is on, or choose another --state-dir.",
    sqlite3.SQLITE_BUSY: "Another process has been writing to it for long.",
}


class Watched(NamedTuple):
    """What readiness is remembered of."""

    pod: NamespacedName
    identity: str
    """What tells it from another pod of that name, or from another part of it; only compared."""


def _claim(namespace: str, service: str, what: str) -> Claim:
    return Claim(NamespacedName(namespace, service), what)


def _difference(before: Mapping[K, V], after: Mapping[K, V]) -> tuple[list[tuple[K, V]], list[tuple[K, V]]]:
    """What is gone or has another value, and what is new or has another value."""
    return (
        [(key, value) for key, value in before.items() if after.get(key) != value],
        [(key, value) for key, value in after.items() if before.get(key) != value],
    )


class Store:
    """The state directory. Every error becomes a StateError that names the file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / DATABASE

    @contextmanager
    def lock(self, verb: str) -> Iterator[None]:
        """Hold the state directory, as `verb`; makes it.

        Waits for a verb that ends by itself. StateError at once where `kproxy run` holds it.
        """
        with lock.hold(self.directory, verb):
            yield

    def load(self) -> Allocations:
        """What was given out, and what was released; nothing if there is no state yet."""
        with self._rows("allocations", "released ORDER BY place") as (given, released):
            held = {_claim(*row[:3]): Resource(row[3], int(row[4])) for row in given}
            if len(set(held.values())) < len(held):
                raise ValueError("something was given out twice")
            return Allocations(held, {Resource(row[4], int(row[5])): _claim(*row[1:4]) for row in released})

    def save(self, before: Allocations, after: Allocations) -> None:
        """Replace `before` by `after`, all or nothing, on disk when this returns."""
        gone, new = _difference(before.held, after.held)
        taken, released = _difference(before.released, after.released)
        if not (gone or new or taken or released):
            return
        columns = "namespace, service, what, kind, value"
        with self._change() as database:
            for table, lost, won in (
                ("allocations", gone, new),
                ("released", [(c, r) for r, c in taken], [(c, r) for r, c in released]),
            ):
                database.executemany(
                    f"DELETE FROM {table} WHERE kind = ? AND value = ?",
                    ((resource.kind, str(resource.value)) for _, resource in lost),
                )
                database.executemany(
                    f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?)",
                    ((*claim.service, claim.what, r.kind, str(r.value)) for claim, r in won),
                )

    def readiness(self) -> dict[Watched, bool]:
        """What `remember_readiness` was told; {} if there is no state yet."""
        with self._rows("readiness") as (rows,):
            return {
                Watched(NamespacedName(namespace, pod), identity): bool(ready)
                for namespace, pod, identity, ready in rows
            }

    def remember_readiness(self, changed: Mapping[Watched, bool | None]) -> None:
        """Add these to what is remembered, None forgets; all or nothing, on disk when this returns."""
        gone = [watched for watched, ready in changed.items() if ready is None]
        if not changed:
            return
        with self._change() as database:
            database.executemany(
                "DELETE FROM readiness WHERE namespace = ? AND pod = ? AND identity = ?",
                ((*watched.pod, watched.identity) for watched in gone),
            )
            database.executemany(
                "INSERT OR REPLACE INTO readiness VALUES (?, ?, ?, ?)",
                ((*w.pod, w.identity, ready) for w, ready in changed.items() if ready is not None),
            )

    def remove(self) -> list[Path]:
        """Delete every file of ours, and the directory if that leaves it empty; what was deleted.

        For who holds the lock; who waits for it finds its file gone and makes another.
        """
        names = [DATABASE, f"{DATABASE}-journal", lock.FILE]
        removed = [path for name in names if (path := self.directory / name).exists()]
        try:
            for path in removed:
                path.unlink()
            if removed and not any(self.directory.iterdir()):
                self.directory.rmdir()
        except OSError as error:
            raise lock.state_error(self.directory, error.strerror or str(error)) from None
        return removed

    @contextmanager
    def _rows(self, *tables: str) -> Iterator[list[list[tuple[Any, ...]]]]:
        """All rows of each table, as of one moment; none where it was not made yet."""
        with self._errors():
            if not self.path.exists():
                yield [[] for _ in tables]
                return
            # "rw": a change that was killed is rolled back first, where the file can be written.
            with self._connect("rw") as database, database:
                database.execute("BEGIN")
                known = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
                yield [
                    database.execute(f"SELECT * FROM {table}").fetchall() if table.split()[0] in known else []
                    for table in tables
                ]

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._errors(), self._connect("rwc") as database, database:
            database.execute("BEGIN IMMEDIATE")
            for table, columns in _TABLES.items():
                database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
            database.execute(f"PRAGMA user_version = {VERSION}")
            yield database

    @contextmanager
    def _connect(self, mode: str) -> Iterator[sqlite3.Connection]:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        with closing(sqlite3.connect(address, uri=True, timeout=30, isolation_level=None)) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise lock.state_error(
                    self.path,
                    f"has schema {version}, of a newer kproxy; this one knows {VERSION}",
                    "Use that one, or another --state-dir.",
                )
            yield database

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, lock.WRITABLE)
            raise lock.state_error(self.path, str(error), remedy) from None
        except (OSError, ValueError) as error:
            remedy = DAMAGED if isinstance(error, ValueError) else lock.WRITABLE
            raise lock.state_error(self.path, str(error), remedy) from None
