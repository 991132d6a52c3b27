"""Read manifests from files, folders and standard input, as kubectl does.

A file is YAML or JSON. YAML documents are separated by lines that start with `---`. Each is
parsed alone, so an invalid document does not affect the others. A file may contain several
JSON texts. A folder stands for the .yaml, .yml and .json files in it, in order of their names;
hidden files and subfolders are ignored.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kproxy.decode import Document
from kproxy.problems import Problem
from kproxy.sources.progress import UNSHOWN, Progress

SUFFIXES = (".yaml", ".yml", ".json")
SETTLED = 10**9
"""Nanoseconds since the last change after which every further change gives a file new timestamps."""
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_BETWEEN = re.compile(r"(\s|^---$)*", re.MULTILINE)
MAX_DEPTH = 5000
"""Levels of a YAML document. libyaml's composer has no limit: about 20,000 levels crash the process."""
_DEEP_INDENTATION = re.compile(rf"^[ \t?:-]{{{MAX_DEPTH // 5}}}", re.MULTILINE)
_DIRECTIVES = re.compile(r"(\s*%.*\n|\s*#.*\n|\s+)*")


class _Loader(yaml.CSafeLoader):
    """libyaml's loader, but timestamps remain text, as in the Kubernetes API."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Reader:
    """Reads the same paths ("-" is standard input) once or repeatedly.

    A file is parsed again only if its timestamps, size or inode changed, or if it was changed less than
    a second before it was read: a second change within one tick of the clock has the same timestamps.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = list(paths)
        self._cache: dict[Path, tuple[tuple[int, ...], list[Document | Problem]]] = {}

    def read(self, progress: Progress = UNSHOWN) -> tuple[list[Document], list[Problem]]:
        """Return all documents, and a problem for each file or document that cannot be read or parsed."""
        cache, self._cache = self._cache, {}
        found = [item for path in self._paths for item in self._read(path, cache, progress)]
        documents = [item for item in found if isinstance(item, Document)]
        return documents, [item for item in found if isinstance(item, Problem)]

    def _read(
        self,
        path: str,
        cache: Mapping[Path, tuple[tuple[int, ...], list[Document | Problem]]],
        progress: Progress,
    ) -> Iterator[Document | Problem]:
        if path == "-":
            progress.begin("reading standard input")
            yield from parse("standard input", sys.stdin.buffer.read())
            return
        try:
            files = list(_files(Path(path)))
        except OSError as error:
            yield Problem(path, "", "", error.strerror or str(error))
            return
        for file in files:
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
                found = [Problem(str(file), "", "", error.strerror or str(error))]
            yield from found


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.iterdir()):
        if file.suffix in SUFFIXES and not file.name.startswith(".") and _is_file(file):
            yield file


def _is_file(path: Path) -> bool:
    """Whether it is a file. A broken symbolic link counts as one: its target may have been one."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def read_documents(paths: Iterable[str]) -> tuple[list[Document], list[Problem]]:
    """Read `paths` once, as `Reader` does."""
    return Reader(paths).read()


def parse(source: str, data: bytes) -> Iterator[Document | Problem]:
    """Parse the content of one file."""
    if data.lstrip()[:1] == b"{":
        yield from _parse_json(source, data)
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        yield Problem(source, "", "", f"is not UTF-8 (byte {error.start})")
        return
    start = line = 0
    for separator in [*_SEPARATOR.finditer(text), None]:
        end = separator.start() if separator else len(text)
        if not _DIRECTIVES.fullmatch(text, start, end):
            yield from _parse_yaml(source, text[start:end], line)
        line += text.count("\n", start, end)
        start = separator.end() if separator else end


def _parse_yaml(source: str, text: str, lines_before: int) -> Iterator[Document | Problem]:
    try:
        if _is_too_deep(text):
            yield Problem(source, "", "", f"YAML is nested too deeply: more than {MAX_DEPTH} levels")
            return
        content: Any = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1 + lines_before}: " if mark else ""
        yield Problem(source, "", "", f"{line}not YAML: {error.problem or error.context}")
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # PyYAML's constructors do not convert errors of Python's own parsers (int, float) to YAMLError.
        yield Problem(source, "", "", f"not YAML: {error}")
    else:
        if content is not None:
            yield Document(source, content)


def _is_too_deep(text: str) -> bool:
    """Count the levels of a document, but only if it has many brackets or is indented far.

    Each level has a bracket or is indented further; at most two levels start in the same column.
    """
    brackets = text.count("[") + text.count("{") - text.count("[]") - text.count("{}")
    if brackets < MAX_DEPTH // 2 and not _DEEP_INDENTATION.search(text):
        return False
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            return True
    return False


def _parse_json(source: str, data: bytes) -> Iterator[Document | Problem]:
    """Parse one JSON text, which stays text for the decoder, or several in sequence."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except RecursionError:
        yield Problem(source, "", "", "JSON is nested too deeply")
        return
    except msgspec.DecodeError as error:
        if "trailing characters" not in str(error):
            yield Problem(source, "", "", f"not JSON: {error}")
            return
    else:
        yield Document(source, msgspec.Raw(data))
        return
    text = data.decode(errors="replace")
    position = len(text) - len(text.lstrip())
    while position < len(text):
        try:
            content, position = json.JSONDecoder().raw_decode(text, position)
        except json.JSONDecodeError as error:
            yield Problem(source, "", "", f"line {error.lineno}: not JSON: {error.msg}")
            return
        yield Document(source, content)
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
