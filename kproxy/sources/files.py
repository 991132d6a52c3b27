"""Read manifests from files, folders and standard input, the way kubectl does.

A file is YAML or JSON. YAML documents are separated by lines that start with `---`
and are parsed one by one, so that a broken one does not take its neighbours along;
JSON texts may follow one another. A folder stands for the .yaml, .yml and .json files
in it, in order of their names (hidden ones and sub-folders are left alone).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kproxy.decode import Document
from kproxy.problems import Problem

SUFFIXES = (".yaml", ".yml", ".json")
_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_BETWEEN = re.compile(r"(\s|^---$)*", re.MULTILINE)
_DIRECTIVES = re.compile(r"(\s*%.*\n|\s*#.*\n|\s+)*")


class _Loader(yaml.CSafeLoader):
    """libyaml's loader; timestamps stay text, as the Kubernetes API has them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_documents(paths: Iterable[str]) -> tuple[list[Document], list[Problem]]:
    """All documents of `paths` ("-" is standard input), and what could not be read or parsed."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for path in paths:
        for source, item in _read(path):
            try:
                text = item if isinstance(item, bytes) else item.read_bytes()
            except OSError as error:
                problems.append(Problem(source, "", "", error.strerror or str(error)))
                continue
            for parsed in parse(source, text):
                (problems if isinstance(parsed, Problem) else documents).append(parsed)  # type: ignore[arg-type]
    return documents, problems


def _read(path: str) -> Iterator[tuple[str, bytes | Path]]:
    if path == "-":
        yield "standard input", sys.stdin.buffer.read()
    elif Path(path).is_dir():
        for file in sorted(Path(path).iterdir()):
            if file.suffix in SUFFIXES and not file.name.startswith(".") and file.is_file():
                yield str(file), file
    else:
        yield path, Path(path)


def parse(source: str, data: bytes) -> Iterator[Document | Problem]:
    """The documents of one file's content."""
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
        content: Any = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1 + lines_before}: " if mark else ""
        yield Problem(source, "", "", f"{line}not YAML: {error.problem or error.context}")
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        # PyYAML's constructors let through what a scalar's text makes of Python's.
        yield Problem(source, "", "", f"not YAML: {error}")
    else:
        if content is not None:
            yield Document(source, content)


def _parse_json(source: str, data: bytes) -> Iterator[Document | Problem]:
    """One JSON text, kept as text for the decoder; or several in a row."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except RecursionError:
        yield Problem(source, "", "", "not JSON that can be read: it is too deep")
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
