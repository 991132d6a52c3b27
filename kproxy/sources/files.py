"""Read manifests from files, folders and standard input, as kubectl does.

A folder stands for the .yaml, .yml and .json files in it, in order of their names, on request also for those
in its subfolders. Hidden files and folders are ignored: a ConfigMap volume has copies of its files in some.
documents.py parses what is read.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from kproxy.decode import Document
from kproxy.problems import Problem
from kproxy.sources.documents import parse
from kproxy.sources.progress import UNSHOWN, Progress

SUFFIXES = (".yaml", ".yml", ".json")
STANDARD_INPUT = "standard input"
SETTLED = 10**9
"""Nanoseconds since the last change after which every further change gives a file new timestamps."""


_Parsed: TypeAlias = list[Document | Problem]
_Cache: TypeAlias = Mapping[Path, tuple[tuple[int, ...], _Parsed]]
"""By file: its timestamps, size and inode, and its content."""


class Read(NamedTuple):
    """The content of some paths."""

    documents: list[Document]
    problems: list[Problem]
    """One for each file or document that cannot be read or parsed."""
    sources: dict[str, list[str]]
    """The files of each path, as documents and problems name them, even those without documents."""


class Reader:
    """Reads the same paths ("-" is standard input) once or repeatedly.

    A file is parsed again only if its timestamps, size or inode changed, or if it was changed less than
    a second before it was read: a second change within one tick of the clock has the same timestamps.
    """

    def __init__(self, paths: Iterable[str], recursive: bool = False) -> None:
        """`recursive`: a folder stands also for the files in its subfolders."""
        self._paths = list(paths)
        self._recursive = recursive
        self._cache: dict[Path, tuple[tuple[int, ...], _Parsed]] = {}

    def read(self, progress: Progress = UNSHOWN) -> Read:
        """Read all files and parse those that changed."""
        cache, self._cache = self._cache, {}
        read = Read([], [], {})
        for path in self._paths:
            files = list(self._read(path, cache, progress))
            found = [item for _, items in files for item in items]
            read.documents.extend(item for item in found if isinstance(item, Document))
            read.problems.extend(item for item in found if isinstance(item, Problem))
            read.sources[path] = [source for source, _ in files]
        return read

    def _read(self, path: str, cache: _Cache, progress: Progress) -> Iterator[tuple[str, _Parsed]]:
        if path == "-":
            progress.begin("reading standard input")
            yield STANDARD_INPUT, list(parse(STANDARD_INPUT, sys.stdin.buffer.read()))
            return
        for file in _files(Path(path), self._recursive):
            if isinstance(file, Problem):
                yield file.source, [file]
            else:
                yield str(file), self._file(file, cache, progress)

    def _file(self, file: Path, cache: _Cache, progress: Progress) -> _Parsed:
        try:
            now, status = time.time_ns(), file.stat()
            is_settled = now - status.st_ctime_ns > SETTLED
            signature = (
                status.st_dev,
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
            if file in cache and cache[file][0] == signature:
                found = cache[file][1]
            else:
                progress.begin(f"reading {file}")
                found = list(parse(str(file), file.read_bytes()))
            self._cache[file] = (signature if is_settled else (), found)
        except OSError as error:
            return [Problem(str(file), "", "", error.strerror or str(error))]
        return found


def _files(path: Path, recursive: bool) -> Iterator[Path | Problem]:
    """The file, or the manifests of the folder; a problem for each folder that cannot be read."""
    try:
        entries = sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        yield Problem(str(path), "", "", error.strerror or str(error))
        return
    if entries is None:
        yield path
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if recursive and entry.is_dir() and not entry.is_symlink():
            yield from _files(entry, recursive)
        elif entry.suffix in SUFFIXES and _is_file(entry):
            yield entry


def _is_file(path: Path) -> bool:
    """Whether it is a file. A broken symbolic link counts as one: its target may have been one."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def subfolders(path: Path) -> Iterator[Path]:
    """Yield the folders from which `recursive` reads files besides `path` itself. Raises OSError."""
    for entry in sorted(path.iterdir()) if path.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            yield entry
            yield from subfolders(entry)


def has_manifests_below(path: str) -> bool:
    """Whether subfolders of a folder contain manifests, which only `recursive` reads."""
    try:
        folders = subfolders(Path(path))
        return any(isinstance(file, Path) for folder in folders for file in _files(folder, False))
    except OSError:
        return False


def read_documents(paths: Iterable[str]) -> tuple[list[Document], list[Problem]]:
    """Read `paths` once, as `Reader` does."""
    read = Reader(paths).read()
    return read.documents, read.problems
