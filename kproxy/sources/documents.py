"""The content of a file -> documents: YAML or JSON, in UTF-8, UTF-16 or UTF-32.

YAML documents are separated by lines that start with `---`. Each is parsed alone, so an invalid document does
not affect the others. A file may contain several JSON texts. A file of which a part cannot be parsed and that
contains the marks of a template is one problem: its objects are unknown until it is rendered.

The cost of a file is bounded by its size, and for aliases of YAML by a limit (yaml_json.py). Whatever a
parser raises is a problem of the file.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kproxy.decode import Document
from kproxy.decode.text import MalformedError, from_json, most_values, reason
from kproxy.decode.wire import Head
from kproxy.digest import blake2b
from kproxy.limits import DOCUMENTS, FILE_BYTES, FILE_VALUES, YAML_BYTES
from kproxy.problems import Problem

if TYPE_CHECKING:
    from kproxy.sources.yaml_json import Converter

_SEPARATOR = "---"
_BYTE_ORDER_MARK = re.compile(r"^\ufeff+", re.MULTILINE)
"""At the start of a line, as in files that were written one behind the other."""
_JSON_OBJECT = r"\s*\{\s*([\"}]|\Z)"
_TEMPLATE = r"\{\{|\{%|<%|\$\{\w"
"""What Helm, Jinja, ERB and envsubst expect where values are to be filled in."""
_BETWEEN = re.compile(r"(\s|^---$)*", re.MULTILINE)
_DIRECTIVES = re.compile(r"(?:\s|%.*\n|#.*\n)*")
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (b"\0\0\0", "utf-32-be"),
    (b"\0", "utf-16-be"),
)
"""By the first bytes of a file. Manifests begin with an ASCII character, so a null byte tells the width."""


class GivenUp(Exception):
    """Raised by the `check` of `parse`: the content is not needed any more, or took too long."""


class Texts(Struct, frozen=True):
    """The documents of a file of YAML by a hash of their texts: before, and those that are parsed now."""

    before: Mapping[bytes, Document]
    now: dict[bytes, Document]


def parse(
    source: str, data: bytes, check: Callable[[], None] = lambda: None, texts: Texts | None = None
) -> Iterator[Document | Problem]:
    """Parse the content of one file. `check` is called often, and may raise GivenUp to end this.

    `texts` contains the YAML documents that this file had before. They are not parsed again.
    """
    try:
        yield from _parse(source, data, check, texts or Texts({}, {}))
    except GivenUp:
        raise
    except Exception as error:
        yield Problem(source, "", "", reason(error))


def _parse(source: str, data: bytes, check: Callable[[], None], texts: Texts) -> list[Document | Problem]:
    if len(data) > FILE_BYTES:
        return [_too_large(source, "", FILE_BYTES)]
    data = _utf8(data)
    if problem := _too_many_values(source, data):
        return [problem]
    found = _parse_json(source, data, check) if data.lstrip()[:1] == b"{" else None
    if found is not None and not _has_problem(found):
        return found
    if len(data) > YAML_BYTES:
        return found or [_too_large(source, " as YAML", YAML_BYTES)]
    text = data.decode()
    if "\ufeff" in text:
        text = _BYTE_ORDER_MARK.sub("", text)
    if text.count("\n---") > DOCUMENTS:
        return [Problem(source, "", "", f"has more than {DOCUMENTS} documents")]
    found = _better(text, found, list(_parse_documents(source, text, check, texts)))
    if _has_problem(found) and (template := re.search(_TEMPLATE, text)):
        line = text.count("\n", 0, template.start()) + 1
        found = [Problem(source, "", "", f"line {line}: a template: render it first")]
    return found


def _invalid(form: str, error: Exception) -> str:
    """Return `JSON is nested too deeply`, or `not JSON: ` and what the parser says."""
    why = reason(error)
    return f"{form} {why}" if why.startswith("is ") else f"not {form}: {why}"


def _too_large(source: str, form: str, limit: int) -> Problem:
    return Problem(source, "", "", f"is too large{form}: more than {limit >> 20} MiB")


def _too_many_values(source: str, data: bytes) -> Problem | None:
    """Return a problem if JSON, or YAML that is written like JSON, has too many values for the decoder."""
    if most_values(data) > FILE_VALUES:
        return Problem(source, "", "", f"has more than {FILE_VALUES:,} values")
    return None


def _utf8(data: bytes) -> bytes:
    """Convert the text of a file to UTF-8, without a byte order mark at its start."""
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
    """Return the results of the parser for YAML, or for JSON if that read more documents."""
    if json_ is None or not _has_problem(yaml_) or not re.match(_JSON_OBJECT, text):
        return yaml_
    return max(json_, yaml_, key=lambda found: sum(isinstance(item, Document) for item in found))


def _parse_documents(
    source: str, text: str, check: Callable[[], None], texts: Texts
) -> Iterator[Document | Problem]:
    from kproxy.sources.yaml_json import Converter  # not at the top: JSON needs no PyYAML

    converter = Converter(check)
    start = counted = line = number = 0
    for end in [*_separators(text), len(text)]:
        if not _DIRECTIVES.fullmatch(text, start, end):
            number += 1
            line, counted = line + text.count("\n", counted, start), start
            yield from _parse_once(source, text[start:end], line, number, converter, texts)
        start = end + len(_SEPARATOR)


def _separators(text: str) -> Iterator[int]:
    """Yield where lines begin that separate documents. A regular expression would take 20 times as long."""
    at = 0 if text.startswith(_SEPARATOR) else text.find(f"\n{_SEPARATOR}") + 1
    while text.startswith(_SEPARATOR, at):
        after = at + len(_SEPARATOR)
        if not text[after : after + 1].strip():
            yield at
        at = text.find(f"\n{_SEPARATOR}", after) + 1 or len(text)


def _parse_once(
    source: str, text: str, lines_before: int, number: int, converter: Converter, texts: Texts
) -> Iterator[Document | Problem]:
    """Parse a document, unless the file had it before."""
    key = blake2b(text.encode(), digest_size=16).digest()
    known = texts.before.get(key)
    if known is None:
        found = list(_parse_yaml(source, text, lines_before, number, converter))
        texts.now.update((key, item) for item in found if isinstance(item, Document))
        yield from found
        return
    first = _first_line(text, lines_before)
    moved = (known.number, known.line) != (number, first)
    texts.now[key] = replace(known, number=number, line=first) if moved else known
    yield texts.now[key]


def _parse_yaml(
    source: str, text: str, lines_before: int, number: int, converter: Converter
) -> Iterator[Document | Problem]:
    import yaml

    from kproxy.sources.yaml_json import TooDeepError

    try:
        content, repeated = converter.to_json(text)
    except GivenUp:
        raise
    except TooDeepError as error:
        yield Problem(source, "", "", f"YAML is nested too deeply: {error}")
    except yaml.reader.ReaderError as error:
        number_of_line = lines_before + 1 + text.encode()[: error.position].count(b"\n")
        yield Problem(source, "", "", f"line {number_of_line}: not YAML: {error.reason}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1 + lines_before}: " if mark else ""
        yield Problem(source, "", "", f"{line}not YAML: {error.problem or error.context}")
    except Exception as error:
        first = _first_line(text, lines_before)
        yield Problem(source, "", "", f"line {first}: {_invalid('YAML', error)}")
    else:
        if content not in ("", "null"):
            data, first = content.encode(), _first_line(text, lines_before)
            yield _too_many_values(source, data) or Document(
                source, msgspec.Raw(data), number, first, repeated
            )


def _first_line(text: str, lines_before: int) -> int:
    """Return the line on which the content of a document begins, after comments and directives."""
    before = _DIRECTIVES.match(text)
    return lines_before + 1 + (text.count("\n", 0, before.end()) if before else 0)


def _parse_json(source: str, data: bytes, check: Callable[[], None]) -> list[Document | Problem]:
    """Parse one JSON text, which stays text for the decoder, or several in sequence."""
    if head := _head(data):
        return [Document(source, msgspec.Raw(data), head=head)]
    try:
        from_json(data, msgspec.Raw)
    except MalformedError as error:
        if "trailing characters" in str(error):
            return list(_parse_json_texts(source, data.decode(), check))
        return [Problem(source, "", "", _invalid("JSON", error))]
    return [Document(source, msgspec.Raw(data))]


def _head(data: bytes) -> Head | None:
    """Return what a JSON text is; None if this or the text is invalid, or if a List has too many items."""
    try:
        head = from_json(data, Head)
    except msgspec.DecodeError:
        return None
    return None if head.items and len(head.items) > DOCUMENTS else head


def _parse_json_texts(source: str, text: str, check: Callable[[], None]) -> Iterator[Document | Problem]:
    """Find the end of each text, which stays text for the decoder, too."""
    from json import JSONDecodeError, JSONDecoder  # not at the top: a file has one text, or YAML

    decoder = JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
    text = _BYTE_ORDER_MARK.sub("", text)
    position = len(text) - len(text.lstrip())
    number, line, counted = 1, 1, 0
    while position < len(text):
        check()
        if number > DOCUMENTS:
            yield Problem(source, "", "", f"has more than {DOCUMENTS} documents")
            return
        line, counted = line + text.count("\n", counted, position), position
        try:
            _, end = decoder.raw_decode(text, position)
            content = from_json(text[position:end].encode(), msgspec.Raw)
        except JSONDecodeError as error:
            yield Problem(source, "", "", f"line {error.lineno}: not JSON: {error.msg}")
            return
        except (MalformedError, RecursionError) as error:
            yield Problem(source, "", "", f"line {line}: {_invalid('JSON', error)}")
            return
        yield Document(source, content.copy(), number, line)
        position = end
        number += 1
        between = _BETWEEN.match(text, position)
        position = between.end() if between else position
