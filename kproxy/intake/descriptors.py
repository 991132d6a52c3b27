"""Paths of open files, for functions that take only a path: sockets of Unix, and OpenSSL."""

from __future__ import annotations

import os

from kproxy.problems import HostError


def path_of(descriptor: int) -> str:
    """Return a path of an open file, which is valid until it is closed. Raises HostError without /proc."""
    path = f"/proc/self/fd/{descriptor}"
    if not os.path.lexists(path):
        raise HostError("/proc is not mounted.", "Mount it: mount -t proc proc /proc")
    return path
