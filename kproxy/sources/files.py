"""Read manifests from files, folders and standard input, as kubectl does.

A folder stands for the .yaml, .yml and .json files in it, in order of their names. With `recursive`, it also
stands for those in its subfolders. Hidden files and folders are ignored: a ConfigMap volume has copies of its
files in some.
documents.py parses what is read.

A program that follows files must not wait for the writer of a pipe, so it reads regular files only. A command
also reads pipes that its caller names: a shell's `<(...)` is one. The size of a file is limited, and so is
the CPU time to parse it. A limit in real time would depend on how busy the machine is.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from errno import EINVAL
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from kproxy.decode import Document
from kproxy.intake.reading import read_up_to
from kproxy.limits import FILE_BYTES, FILE_SECONDS
from kproxy.problems import SHORTAGES, Problem, limited
from kproxy.sources.documents import GivenUp, Texts, parse
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


class _Content(Struct, frozen=True):
    """The content of a file."""

    source: str
    documents: list[Document]
    problems: list[Problem]


_SHORTAGES = frozenset(map(os.strerror, SHORTAGES))
_DOCUMENTS, _PROBLEMS = attrgetter("documents"), attrgetter("problems")


def _content(source: str, parsed: _Parsed) -> _Content:
    documents = [item for item in parsed if isinstance(item, Document)]
    return _Content(source, documents, [item for item in parsed if isinstance(item, Problem)])


class Reader:
    """Reads the same paths ("-" is standard input) once or repeatedly.

    A file is parsed again only if its timestamps, size or inode changed, or if it was changed less than
    a second before it was read: a second change within one tick of the clock has the same timestamps.
    """

    def __init__(self, paths: Iterable[str], recursive: bool = False, pipes: bool = True) -> None:
        """`recursive`: a folder stands also for the files in its subfolders. `pipes`: paths may be pipes."""
        self._paths = list(paths)
        self._recursive = recursive
        self._pipes = pipes
        self._ended = False
        self.lacking = False
        """Whether the last `read` could not read something because this host lacked files or memory."""
        self._cache: dict[Path, tuple[tuple[int, ...], _Parsed]] = {}
        self._sources: dict[str, list[str]] = {}
        self._texts: dict[Path, dict[bytes, Document]] = {}
        self._contents: list[dict[Path | str, _Content]] = []
        """By file, for each path."""

    def end(self) -> None:
        """Let a `read` in another thread end soon. Its result is incomplete."""
        self._ended = True

    def forget(self) -> None:
        """Free the content of all files. The next `read` parses all of them."""
        self._cache, self._contents, self._texts = {}, [], {}

    def read(self, progress: Progress = UNSHOWN, named: Collection[Path] | None = None) -> Read:
        """Read all files and parse those that changed.

        If `named` is not None, only these files may have changed since the last `read`, and others are not
        looked at. If one of them is new or missing, all files are read.
        """
        if named is None or not self._contents or not all(map(self._read_again, named)):
            cache, self._cache = self._cache, {}
            self._texts = {file: self._texts[file] for file in cache if file in self._texts}
            self._contents = [dict(self._read(path, cache, progress)) for path in self._paths]
            sources = [[each.source for each in found.values()] for found in self._contents]
            self._sources = dict(zip(self._paths, sources, strict=True))
        documents, problems = list[Document](), list[Problem]()
        for found in self._contents:
            documents += chain.from_iterable(map(_DOCUMENTS, found.values()))
            problems += limited(chain.from_iterable(map(_PROBLEMS, found.values())))
        self.lacking = any(problem.message in _SHORTAGES for problem in problems)
        return Read(documents, problems, self._sources)

    def _read_again(self, file: Path) -> bool:
        """Read a file again. Returns False if that is not enough, because files may be new or missing."""
        holding = [found for found in self._contents if file in found]
        if not holding:
            return not _may_matter(file)
        if _is_special(file) or not file.exists():
            return False
        content = self._content(file, self._cache, UNSHOWN)
        for found in holding:
            found[file] = content
        return True

    def _read(self, path: str, cache: _Cache, progress: Progress) -> Iterator[tuple[Path | str, _Content]]:
        if path == "-":
            progress.begin("reading standard input")
            yield STANDARD_INPUT, _content(STANDARD_INPUT, _standard_input())
            return
        for file in _files(Path(path), self._recursive):
            if isinstance(file, Problem):
                yield file.source, _content(file.source, [file])
            else:
                yield file, self._content(file, cache, progress)

    def _content(self, file: Path, cache: _Cache, progress: Progress) -> _Content:
        return _content(shown(file), self._file(file, cache, progress))

    def _file(self, file: Path, cache: _Cache, progress: Progress) -> _Parsed:
        try:
            now, status = time.time_ns(), file.stat()
            is_settled = abs(now - status.st_ctime_ns) > SETTLED  # the clock may have been set back
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
                progress.begin(f"reading {shown(file)}")
                before, self._texts[file] = self._texts.get(file, {}), {}
                texts = Texts(before, self._texts[file])
                found = list(parse(shown(file), content_of(file, self._pipes), self._patience(file), texts))
            self._cache[file] = (signature if is_settled else (), found)
        except OSError as error:
            return [Problem(shown(file), "", "", error.strerror or str(error))]
        except GivenUp as error:
            found = [Problem(shown(file), "", "", str(error))]
            self._cache[file] = (signature if is_settled else (), found)
        return found

    def _patience(self, file: Path) -> Callable[[], None]:
        """Return what raises GivenUp if a file is not needed any more, or takes too long."""
        end = time.thread_time() + FILE_SECONDS

        def check() -> None:
            if self._ended or time.thread_time() > end or not os.path.lexists(file):
                raise GivenUp(f"was given up: it was deleted, or parsing takes more than {FILE_SECONDS} s")

        return check


def shown(path: Path | str) -> str:
    """Return a path as text. A byte that is not UTF-8 becomes `\\xff`, for example."""
    return os.fsencode(path).decode(errors="backslashreplace")


def content_of(path: Path, pipes: bool) -> bytes:
    """Read a file up to the limit of `parse`. Raises OSError, also for a pipe or a device without `pipes`."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags if pipes else flags | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not (pipes or stat.S_ISREG(os.fstat(descriptor).st_mode)):
            raise OSError(EINVAL, "is not a regular file", str(path))
        return read_up_to(file, FILE_BYTES + 1)


def _files(path: Path, recursive: bool) -> Iterator[Path | Problem]:
    """Yield the file, or the manifests of the folder, and a problem for each unreadable folder."""
    try:
        entries = sorted(path.iterdir()) if path.is_dir() else None
    except OSError as error:
        yield Problem(shown(path), "", "", error.strerror or str(error))
        return
    if entries is None:
        yield path
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if recursive and _is_folder(entry) and not entry.is_symlink():
            yield from _files(entry, recursive)
        elif entry.suffix in SUFFIXES and not _is_folder(entry):
            if _is_special(entry):
                yield Problem(shown(entry), "", "", "is not a regular file")
            else:
                yield entry


def _is_folder(path: Path) -> bool:
    """Whether it is a folder. A path that cannot be examined counts as a file, whose error is reported."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_special(path: Path) -> bool:
    """Whether it is a pipe, a device or a socket. kproxy does not read these in folders."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # for example a symbolic link whose target is missing: it may have been a file
        return False


def _standard_input() -> _Parsed:
    if sys.stdin is None:
        return [Problem(STANDARD_INPUT, "", "", "is closed")]
    try:
        return list(parse(STANDARD_INPUT, read_up_to(sys.stdin.buffer, FILE_BYTES + 1)))
    except OSError as error:
        return [Problem(STANDARD_INPUT, "", "", error.strerror or str(error))]


def _may_matter(path: Path) -> bool:
    """Whether the files in a folder may have changed with `path`, which is none of them before.

    A hidden or another file does not matter, unless manifests are reached through it: a ConfigMap volume
    has them behind the link `..data`.
    """
    name = path.name
    is_manifest = path.suffix in SUFFIXES and not name.startswith(".")
    return is_manifest or name.startswith("..") or path.is_symlink() or _is_folder(path)


def subfolders(path: Path) -> Iterator[Path]:
    """Yield the folders from which `recursive` reads files besides `path` itself. Raises OSError."""
    if not path.is_dir():
        return
    with os.scandir(path) as entries:  # unlike Path.is_dir, its entries need no system call for each file
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in sorted(names):
        if not name.startswith("."):
            yield path / name
            yield from subfolders(path / name)


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
