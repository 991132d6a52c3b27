"""The saved state: an SQLite database under --state-dir, with one transaction per change.

It contains the allocated and released addresses and node ports (controlplane/allocate.py), and
which pods were ready at their last probe (probes/prober.py). Only one process at a time writes to
a state directory (lock.py); processes that only read need no lock.

The database is created under another name, and renamed when it has its tables. So an empty file is a
damaged database: its content was lost, for example in a crash of the machine.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from kproxy.controlplane.ledger import NOTHING, Allocations, Claim, Resource
from kproxy.model import Family, NamespacedName, Protocol
from kproxy.problems import KproxyError, Problem
from kproxy.state import lock
from kproxy.state.lock import DATABASE

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

VERSION = 1
"""PRAGMA user_version; 0 in the oldest databases. A newer version is refused. Missing tables are created."""
ALLOCATIONS, READINESS = "allocations", "readiness"
_TABLES = {
    ALLOCATIONS: """
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL,  -- text: an IPv6 address does not fit SQLite's integers
    PRIMARY KEY (namespace, service, what), UNIQUE (kind, value)""",
    "released": """
    place INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of release
    namespace TEXT NOT NULL, service TEXT NOT NULL, what TEXT NOT NULL,
    kind TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, value)""",
    READINESS: """
    namespace TEXT NOT NULL, pod TEXT NOT NULL, identity TEXT NOT NULL, ready INTEGER NOT NULL,
    PRIMARY KEY (namespace, pod, identity)""",
}
PATIENCE = 10
"""Seconds to wait for another process that has locked the database."""
_LARGEST = {Family.IPV4: 2**32 - 1, Family.IPV6: 2**128 - 1} | dict.fromkeys(Protocol, 65535)
"""The largest value of a resource of each kind."""
DAMAGED = (
    "The file is damaged. Restore it from a backup, or move it away; then addresses are allocated again."
)
_REMEDIES = {
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
    sqlite3.SQLITE_FULL: "Free space on that disk, or select another --state-dir.",
    sqlite3.SQLITE_IOERR: "Check that disk, or select another --state-dir.",
    sqlite3.SQLITE_BUSY: "Wait for that process, or end it.",
}


class PodIdentity(Struct, frozen=True):
    """The key of a saved readiness."""

    pod: NamespacedName
    identity: str
    """Distinguishes it from other pods of this name. An opaque text."""


def _claim(namespace: str, service: str, what: str) -> Claim:
    return Claim(NamespacedName(namespace, service), what)


def _resource(kind: str, value: str) -> Resource:
    if not 0 <= int(value) <= _LARGEST.get(kind, -1):  # type: ignore[call-overload]
        raise ValueError(f"{value} is not a value of the kind {kind}")
    return Resource(kind, int(value))


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
        self._unsaved = set[str]()
        """What a new database lacks, after another program removed the one before."""

    @contextmanager
    def lock(self, verb: str, warn: Callable[[str], None]) -> Iterator[None]:
        """Create and lock the state directory for `verb`.

        Waits for a verb that ends by itself, with a warning if that takes long. Raises StateError
        immediately if `kproxy run` holds the lock.
        """
        with lock.hold(self.directory, verb, warn):
            yield

    def load(self) -> Allocations:
        """Return the allocations, which are empty if there is no state yet."""
        with self._rows("allocations", "released ORDER BY place") as (allocated, released):
            held = {_claim(*row[:3]): _resource(*row[3:]) for row in allocated}
            if len(set(held.values())) < len(held):
                raise ValueError("an address or port is allocated twice")
            return Allocations(held, {_resource(*row[4:]): _claim(*row[1:4]) for row in released})

    def save(self, before: Allocations, after: Allocations) -> None:
        """Replace `before` by `after` in one transaction, which is on disk when this returns."""
        before = self._saved(ALLOCATIONS, before, NOTHING)
        if after is before:
            return
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
        self._unsaved.discard(ALLOCATIONS)

    def warnings(self) -> list[Problem]:
        """Return what could not be read, and does not matter for a command that changes nothing."""
        return []

    def readiness(self) -> dict[PodIdentity, bool]:
        """Return the saved readiness of pods; {} if there is no state yet."""
        with self._rows("readiness") as (rows,):
            return {
                PodIdentity(NamespacedName(namespace, pod), identity): bool(ready)
                for namespace, pod, identity, ready in rows
            }

    def save_readiness(self, before: Mapping[PodIdentity, bool], after: Mapping[PodIdentity, bool]) -> None:
        """Replace `before` by `after` in one transaction, which is on disk when this returns."""
        removed, added = _difference(self._saved(READINESS, before, {}), after)
        if not (removed or added):
            return
        with self._change() as database:
            database.executemany(
                "DELETE FROM readiness WHERE namespace = ? AND pod = ? AND identity = ?",
                ((*key.pod, key.identity) for key, _ in removed),
            )
            database.executemany(
                "INSERT OR REPLACE INTO readiness VALUES (?, ?, ?, ?)",
                ((*key.pod, key.identity, ready) for key, ready in added),
            )
        self._unsaved.discard(READINESS)

    def _saved(self, what: str, before: T, nothing: T) -> T:
        """Return what the database has: `before`, or nothing if it is a new one."""
        with self._errors():
            if not self.path.exists():
                self._unsaved = {ALLOCATIONS, READINESS}
        return nothing if what in self._unsaved else before

    def remove(self) -> list[Path]:
        """Delete kproxy's files, and the directory if it is empty then. Returns the deleted files.

        The caller holds the lock. A process that waits for the lock creates a new lock file.
        """
        removed = [path for name in lock.FILES if (path := self.directory / name).exists()]
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
            with self._connect() as database, database:
                database.execute("BEGIN")
                names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
                yield [
                    database.execute(f"SELECT * FROM {table}").fetchall() if table.split()[0] in names else []
                    for table in tables
                ]

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._errors():
            opened = self._connect() if self.path.exists() else self._create()
            with opened as database, database:
                database.execute("BEGIN IMMEDIATE")
                _create_tables(database)
                yield database

    @contextmanager
    def _create(self) -> Iterator[sqlite3.Connection]:
        """Create the database, under its name when the block has filled it.

        The new file needs no journal of its own: if this is interrupted, it is created again. A journal
        without a database has no meaning, and must not be applied to it.
        """
        for name in lock.FILES:
            if name != lock.FILE:
                (self.directory / name).unlink(missing_ok=True)
        new = self.directory / lock.NEW_DATABASE
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, lock.PRIVATE))
        with closing(sqlite3.connect(new, isolation_level=None)) as database:
            database.execute("PRAGMA journal_mode = OFF")
            yield database
        new.rename(self.path)
        _sync(self.directory)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        lock.check_own(self.path)
        if not self.path.stat().st_size:
            raise lock.state_error(self.path, "is empty: its content was lost", DAMAGED)
        # "rw", so that SQLite first rolls back a change that was interrupted by a kill.
        address = f"{self.path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)) as database:
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
            holder = lock.holder_of(self.path) if remedy is _REMEDIES[sqlite3.SQLITE_BUSY] else ""
            message = f"{error} by {holder}" if holder else str(error)
            raise lock.state_error(self.path, message, remedy) from None
        except OSError as error:
            raise lock.state_error(self.path, error.strerror or str(error)) from None
        except KproxyError:
            raise
        except Exception as error:  # a row of any content, which kproxy did not write
            raise lock.state_error(self.path, str(error), DAMAGED) from None


def _sync(directory: Path) -> None:
    """Wait until the names in a directory are on disk."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _create_tables(database: sqlite3.Connection) -> None:
    for table, columns in _TABLES.items():
        database.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
    database.execute(f"PRAGMA user_version = {VERSION}")


class ReadOnlyStore(Store):
    """A state directory that is read without its lock, and not changed."""

    _unreadable = False

    @contextmanager
    def lock(self, verb: str, warn: Callable[[str], None]) -> Iterator[None]:
        """Do nothing."""
        yield

    def load(self) -> Allocations:
        """Return the allocations, which are empty for users who cannot read them."""
        try:
            self.path.open("rb").close()
        except PermissionError:
            self._unreadable = True
            return NOTHING
        except OSError:  # `Store.load` knows what it means
            pass
        return super().load()

    def warnings(self) -> list[Problem]:
        """Return that `load` could not read the allocations, if that is so."""
        message = "Permission denied: addresses and node ports may differ from those that are allocated"
        return [Problem(str(self.path), "", "", message)] if self._unreadable else []

    def save(self, before: Allocations, after: Allocations) -> None:
        """Do nothing."""

    def save_readiness(self, before: Mapping[PodIdentity, bool], after: Mapping[PodIdentity, bool]) -> None:
        """Do nothing."""
