"""The files of HAProxy's processes: a folder for each start, which belongs to root alone.

    STATE/gateway/12/haproxy.cfg, process.cfg, maps, certificates, haproxy-12.sock, pid

A start writes a new folder, and removes the others once HAProxy runs with it. So a full disk, a crash or a
refused configuration leaves the folder in use as it was. HAProxy reads the files at its start only, and each
start writes them again. So what another program writes to them has no effect.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from kproxy.problems import StateError

CURRENT = "current"
"""The link to the folder of an HAProxy that another program starts."""


class Folders:
    """The folders below `STATE/gateway`. Methods raise StateError."""

    def __init__(self, state: Path) -> None:
        self.path = state / "gateway"
        self.empty = self.path / "empty"
        """A folder without files, for HAProxy to be confined in."""

    def create(self) -> None:
        """Create what is missing."""
        try:
            for folder in (self.path, self.empty):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _failed("create", self.path, error) from None

    def newest_first(self) -> list[Path]:
        """Return the folders, that of the last start first."""
        return [self.path / str(number) for number in sorted(self._numbers(), reverse=True)]

    def following(self) -> Path:
        """Return the folder of the next start."""
        return self.path / str(max(self._numbers(), default=0) + 1)

    def write(self, folder: Path, contents: Mapping[str, bytes]) -> None:
        """Write files into a new folder. If that fails, nothing of it remains."""
        self.create()  # another program may have removed the folders
        try:
            folder.mkdir(mode=0o700)
            for name, content in contents.items():
                _write(folder, folder / name, content)
        except OSError as error:
            self.discard(folder)
            raise _failed("write", folder, error) from None

    def point(self, folder: Path) -> None:
        """Let the link `current` lead to a folder."""
        link = self.path / f"{CURRENT}.new"
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(folder.name)
            link.rename(self.path / CURRENT)
        except OSError as error:
            raise _failed("write", link, error) from None

    def keep(self, folder: Path) -> None:
        """Remove all other folders."""
        for other in self.newest_first():
            if other != folder:
                self.discard(other)

    def discard(self, folder: Path) -> None:
        """Remove a folder that is not used."""
        from shutil import rmtree  # not at the top: each daemon imports this module, few have a gateway

        rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove everything."""
        self.discard(self.path)

    def _numbers(self) -> Iterator[int]:
        with suppress(FileNotFoundError):
            yield from (int(each.name) for each in self.path.iterdir() if each.name.isdecimal())


def _write(folder: Path, path: Path, content: bytes) -> None:
    if path.parent != folder:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _failed(verb: str, path: Path, error: OSError) -> StateError:
    return StateError(f"Cannot {verb} {path}: {error.strerror}.")
