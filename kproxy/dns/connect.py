"""Connects the resolver of this host to the name server, by one file of the resolver's configuration."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from kproxy.dns.core.connect import HEADING, RESOLVERS, Resolver
from kproxy.problems import HostError

RESTART_SECONDS = 120
"""The maximum duration of the restart of a resolver."""
UNITS = ("sys/fs/cgroup/system.slice", "sys/fs/cgroup/systemd/system.slice")
"""The cgroups of units, in versions 2 and 1. The cgroup of a unit exists while the unit runs."""
ROOT = Path("/")


def running(root: Path = ROOT) -> list[Resolver]:
    """Return the resolvers whose unit runs. `root` is the host's file system, as in the other functions."""
    return [
        each for each in RESOLVERS if any((root / unit / f"{each.name}.service").is_dir() for unit in UNITS)
    ]


def apply(resolver: Resolver, content: str, root: Path = ROOT) -> None:
    """Write the file of a resolver, as a whole, and make the resolver read it.

    Raises HostError if kproxy did not write the existing file, or if something fails.
    """
    path = _path(resolver, root)
    try:
        _is_ours(path)
        path.parent.mkdir(exist_ok=True)
        _replace(path, content)
    except OSError as error:
        raise HostError(f"Cannot write {path}: {error.strerror}.", f"Is {resolver.name} installed?") from None
    _reload(resolver, f"{path} was written")


def undo(resolvers: Sequence[Resolver], root: Path = ROOT) -> list[Resolver]:
    """Remove the files of resolvers, and make these read what is left. Returns those that had a file.

    Raises HostError if kproxy did not write one of the files, before it removes any, or if a restart fails.
    Raises OSError if a file cannot be removed.
    """
    found = [each for each in resolvers if _is_ours(_path(each, root))]
    for each in found:
        path = _path(each, root)
        path.unlink()
        _reload(each, f"{path} was removed")
    return found


def _path(resolver: Resolver, root: Path) -> Path:
    return root / resolver.path.lstrip("/")


def _is_ours(path: Path) -> bool:
    """Whether a file exists and is kproxy's. Raises HostError if it is another one."""
    if not os.path.lexists(path):
        return False
    heading = b""
    if path.is_file() and not path.is_symlink():
        with path.open("rb") as file:
            heading = file.readline(len(HEADING) + 1)
    if heading != f"{HEADING}\n".encode():
        raise HostError(f"{path} was not written by kproxy.", "Move it, or connect the resolver by hand.")
    return True


def _replace(path: Path, content: str) -> None:
    """Replace a file, so that it has either its old or its new content at any moment."""
    new = path.with_name(f".{path.name}.new")  # no resolver reads a name that begins with a dot
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)  # resolvers may read it without root
        os.fsync(file.fileno())
    new.rename(path)


def _reload(resolver: Resolver, done: str) -> None:
    command = " ".join(resolver.command)
    try:
        result = subprocess.run(
            resolver.command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=RESTART_SECONDS,
            check=False,
        )
    except OSError as error:
        raise HostError(f"{done}, but `{command}` failed: {error.strerror}.") from None
    except subprocess.TimeoutExpired:
        raise HostError(f"{done}, but `{command}` did not end in {RESTART_SECONDS} s.") from None
    if result.returncode:
        why = " ".join(result.stderr.decode(errors="replace").split()) or f"status {result.returncode}"
        raise HostError(f"{done}, but `{command}` failed: {why}", f"See `journalctl -u {resolver.name}`.")
