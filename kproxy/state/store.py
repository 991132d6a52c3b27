"""The saved state: an SQLite database under --state-dir, with one transaction per change.

It contains the allocated and released addresses and node ports (controlplane/allocate.py), and
which pods were ready at their last probe (probes/prober.py). Only one process at a time writes to
a state directory (lock.py); processes that only read need no lock.
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
"""PRAGMA user_version; 0 in the oldest databases. A newer version is refused. Missing tables are created."""
_TABLES = {
    "allocations": """
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL,  -- text: an IPv6 address does not fit SQLite's integers
    PRIMARY KEY (namespace, service, what), UNIQUE (kind, value)""",
    "released": """
    place INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of release
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, value)""",
    "readiness": """
    namespace TEXT NOT NULL, pod TEXT NOT NULL, identity TEXT NOT NULL, ready INTEGER NOT NULL,
    PRIMARY KEY (namespace, pod, identity)""",
}
DATABASE = "allocations.sqlite"
DAMAGED = (
    "The file is damaged. Restore it from a backup, or move it away; then addresses are allocated again."
)
_REMEDIES = {
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_FULL: "Free space on that disk, or select another --state-dir.",
    sqlite3.SQLITE_IOERR: "Check that disk, or select another --state-dir.",
    sqlite3.SQLITE_BUSY: "Another process has locked the file for too long.",
}


class PodIdentity(NamedTuple):
    """The key of a saved readiness."""

    pod: NamespacedName
    identity: str
    """Distinguishes it from other pods of this name. An opaque text."""


def _claim(namespace: str, service: str, what: str) -> Claim:
    return Claim(NamespacedName(namespace, service), what)


def _difference(before: Mapping[K, V], after: Mapping[K, V]) -> tuple[list[tuple[K, V]], list[tuple[K, V]]]:
    """Return the entries of `before` that `after` lacks or changes, and those that it adds or changes."""
    return (
        [(key, value) for key, value in before.items() if after.get(key) != value],
        [(key, value) for key, value in after.items() if before.get(key) != value],
    )


class Store:
    """The state directory. Its methods raise StateError, which names the file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / DATABASE

    @contextmanager
    def lock(self, verb: str) -> Iterator[None]:
        """Create and lock the state directory for `verb`.

        Waits for a verb that ends by itself. Raises StateError immediately if `kproxy run` holds the lock.
        """
        with lock.hold(self.directory, verb):
            yield

    def load(self) -> Allocations:
        """Return the allocations, which are empty if there is no state yet."""
        with self._rows("allocations", "released ORDER BY place") as (allocated, released):
            held = {_claim(*row[:3]): Resource(row[3], int(row[4])) for row in allocated}
            if len(set(held.values())) < len(held):
                raise ValueError("an address or port is allocated twice")
            return Allocations(held, {Resource(row[4], int(row[5])): _claim(*row[1:4]) for row in released})

    def save(self, before: Allocations, after: Allocations) -> None:
        """Replace `before` by `after` in one transaction, which is on disk when this returns."""
        held_removed, held_added = _difference(before.held, after.held)
        released_removed, released_added = _difference(before.released, after.released)
        if not (held_removed or held_added or released_removed or released_added):
            return
        columns = "namespace, service, what, kind, value"
        with self._change() as database:
            for table, removed, added in (
                ("allocations", held_removed, held_added),
                ("released", [(c, r) for r, c in released_removed], [(c, r) for r, c in released_added]),
            ):
                database.executemany(
                    f"DELETE FROM {table} WHERE kind = ? AND value = ?",
                    ((resource.kind, str(resource.value)) for _, resource in removed),
                )
                database.executemany(
                    f"INSERT INTO {table} ({columns}) VALUES (?, ?, ?, ?, ?)",
                    ((*claim.service, claim.what, r.kind, str(r.value)) for claim, r in added),
                )

    def readiness(self) -> dict[PodIdentity, bool]:
        """Return the saved readiness of pods; {} if there is no state yet."""
        with self._rows("readiness") as (rows,):
            return {
                PodIdentity(NamespacedName(namespace, pod), identity): bool(ready)
                for namespace, pod, identity, ready in rows
            }

    def save_readiness(self, changed: Mapping[PodIdentity, bool | None]) -> None:
        """Save these values; None deletes one. It is one transaction, on disk when this returns."""
        deleted = [key for key, ready in changed.items() if ready is None]
        if not changed:
            return
        with self._change() as database:
            database.executemany(
                "DELETE FROM readiness WHERE namespace = ? AND pod = ? AND identity = ?",
                ((*key.pod, key.identity) for key in deleted),
            )
            database.executemany(
                "INSERT OR REPLACE INTO readiness VALUES (?, ?, ?, ?)",
                ((*key.pod, key.identity, ready) for key, ready in changed.items() if ready is not None),
            )

    def remove(self) -> list[Path]:
        """Delete kproxy's files, and the directory if it is empty then. Returns the deleted files.

        The caller holds the lock. A process that waits for the lock creates a new lock file.
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
        """Read all rows of each table in one transaction. A table that does not exist yet has none."""
        with self._errors():
            if not self.path.exists():
                yield [[] for _ in tables]
                return
            # "rw", so that SQLite first rolls back a change that was interrupted by a kill.
            with self._connect("rw") as database, database:
                database.execute("BEGIN")
                names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
                yield [
                    database.execute(f"SELECT * FROM {table}").fetchall() if table.split()[0] in names else []
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
                    f"has schema version {version}, of a newer kproxy; this kproxy supports up to {VERSION}",
                    "Use the newer kproxy, or select another --state-dir.",
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


class ReadOnlyStore(Store):
    """A state directory that is read without its lock, and not changed."""

    @contextmanager
    def lock(self, verb: str) -> Iterator[None]:
        """Do nothing."""
        yield

    def save(self, before: Allocations, after: Allocations) -> None:
        """Do nothing."""
