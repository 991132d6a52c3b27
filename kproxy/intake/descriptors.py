"""Paths of open files, for functions that take only a path: sockets of Unix, and OpenSSL."""

from __future__ import annotations

import os
from pathlib import Path

from kproxy.problems import HostError


def path_of(descriptor: int) -> str:
    """Return a path of an open file, which is valid until it is closed. Raises HostError without /proc."""
    path = f"/proc/self/fd/{descriptor}"
    if not os.path.lexists(path):
        raise HostError("/proc is not mounted.", "Mount it: mount -t proc proc /proc")
    return path


class ShortPath:
    """A short path of a socket, which is valid while this object is open.

    Linux limits the path of a socket to 107 bytes. So that its directory may have a longer path, a
    descriptor stands for it.
    """

    def __init__(self, path: Path) -> None:
        """Open the directory. Raises OSError, and HostError without /proc."""
        self._descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            self.path = Path(path_of(self._descriptor), path.name)
        except HostError:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
