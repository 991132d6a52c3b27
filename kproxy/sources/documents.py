"""The content of a file -> documents: YAML or JSON, in UTF-8, UTF-16 or UTF-32.

YAML documents are separated by lines that start with `---`. Each is parsed alone, so an invalid document does
not affect the others. A file may contain several JSON texts. A file of which a part cannot be parsed and that
contains the marks of a template is one problem: what it would say is unknown.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator

import msgspec
import yaml

from kproxy.decode import Document
from kproxy.problems import Problem
from kproxy.sources.yaml_json import TooDeepError, yaml_to_json

_SEPARATOR = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_BYTE_ORDER_MARK = re.compile(r"^\ufeff+", re.MULTILINE)
"""At the start of a line, as in files that were written one behind the other."""
_JSON_OBJECT = re.compile(r"\s*\{\s*([\"}]|\Z)")
_TEMPLATE = re.compile(r"\{\{|\{%|<%|\$\{\w")
"""What Helm, Jinja, ERB and envsubst expect where values are to be filled in."""
_BETWEEN = re.compile(r"(\s|^---$)*", re.MULTILINE)
_DIRECTIVES = re.compile(r"(\s*%.*\n|\s*#.*\n|\s+)*")
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\0\0\0", "utf-32-be"),
    (b"\0", "utf-16-be"),
)
"""By the first bytes of a file. Manifests begin with an ASCII character, so a null byte tells the width."""


def parse(source: str, data: bytes) -> Iterator[Document | Problem]:
    """Parse the content of one file."""
    try:
        data = _utf8(data)
        found = _parse_json(source, data) if data.lstrip()[:1] == b"{" else None
        if found is None or _has_problem(found):
            text = _BYTE_ORDER_MARK.sub("", data.decode())
            found = _better(text, found, list(_parse_documents(source, text)))
            if _has_problem(found) and (template := _TEMPLATE.search(text)):
                line = text.count("\n", 0, template.start()) + 1
                found = [Problem(source, "", "", f"line {line}: a template: render it first")]
    except UnicodeDecodeError as error:
        found = [Problem(source, "", "", f"is not {error.encoding.upper()} (byte {error.start})")]
    yield from found


def _utf8(data: bytes) -> bytes:
    """The text of a file in UTF-8, without a byte order mark at its start."""
    encoding = next((name for start, name in _ENCODINGS if data.startswith(start)), "")
    if not encoding and data[1:2] == b"\0":
        encoding = "utf-32-le" if data[2:4] == b"\0\0" else "utf-16-le"
    if encoding:
        data = data.decode(encoding).encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _has_problem(found: Iterable[Document | Problem]) -> bool:
    return any(isinstance(item, Problem) for item in found)


def _better(
    text: str, json_: list[Document | Problem] | None, yaml_: list[Document | Problem]
) -> list[Document | Problem]:
    """Of a file that begins with `{` and is not JSON: YAML in flow style, unless JSON goes further."""
    if json_ is None or not _has_problem(yaml_) or not _JSON_OBJECT.match(text):
        return yaml_
    return max(json_, yaml_, key=lambda found: sum(isinstance(item, Document) for item in found))


def _parse_documents(source: str, text: str) -> Iterator[Document | Problem]:
    start = line = number = 0
    for separator in [*_SEPARATOR.finditer(text), None]:
        end = separator.start() if separator else len(text)
        if not _DIRECTIVES.fullmatch(text, start, end):
            number += 1
            yield from _parse_yaml(source, text[start:end], line, number)
        line += text.count("\n", start, end)
        start = separator.end() if separator else end


def _parse_yaml(source: str, text: str, lines_before: int, number: int) -> Iterator[Document | Problem]:
    try:
        content, repeated = yaml_to_json(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1 + lines_before}: " if mark else ""
        yield Problem(source, "", "", f"{line}not YAML: {error.problem or error.context}")
    except TooDeepError as error:
        yield Problem(source, "", "", f"YAML is nested too deeply: {error}")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        yield Problem(source, "", "", f"not YAML: {error}")
    else:
        if content not in ("", "null"):
            first = _first_line(text, lines_before)
            yield Document(source, msgspec.Raw(content.encode()), number, first, repeated)


def _first_line(text: str, lines_before: int) -> int:
    """The line on which the content of a document begins, after comments and directives."""
    before = _DIRECTIVES.match(text)
    return lines_before + 1 + (text.count("\n", 0, before.end()) if before else 0)


def _parse_json(source: str, data: bytes) -> list[Document | Problem]:
    """Parse one JSON text, which stays text for the decoder, or several in sequence."""
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except RecursionError:
        return [Problem(source, "", "", "JSON is nested too deeply")]
    except msgspec.DecodeError as error:
        if "trailing characters" in str(error):
            return list(_parse_json_texts(source, data.decode(errors="replace")))
        return [Problem(source, "", "", f"not JSON: {error}")]
    return [Document(source, msgspec.Raw(data))]


def _parse_json_texts(source: str, text: str) -> Iterator[Document | Problem]:
    text = _BYTE_ORDER_MARK.sub("", text)
    position = len(text) - len(text.lstrip())
    number, line, counted = 1, 1, 0
    while position < len(text):
        line, counted = line + text.count("\n", counted, position), position
        try:
            content, position = json.JSONDecoder().raw_decode(text, position)
        except json.JSONDecodeError as error:
            yield Problem(source, "", "", f"line {error.lineno}: not JSON: {error.msg}")
            return
        except RecursionError:
            yield Problem(source, "", "", f"line {line}: JSON is nested too deeply")
            return
        yield Document(source, content, number, line)
        number += 1
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
