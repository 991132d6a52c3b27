"""Bytes -> documents: files, folders, standard input. An invalid document does not affect the others."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from kproxy.decode import Document, decode
from kproxy.problems import Problem
from kproxy.sources import files
from kproxy.sources.documents import parse
from kproxy.sources.files import Reader, has_manifests_below, read_documents
from kproxy.sources.folder import changes
from kproxy.sources.yaml_json import FORMS


def parsed(data: bytes | str) -> list[object]:
    """The contents of documents, and the text of problems."""
    found: list[object] = []
    for item in parse("f", data.encode() if isinstance(data, str) else data):
        if isinstance(item, Problem):
            assert item.source == "f"
            found.append(str(item))
        else:
            found.append(
                msgspec.json.decode(item.content) if isinstance(item.content, msgspec.Raw) else item.content
            )
    return found


A, B = {"a": 1}, {"b": 2}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("", []),
        ("# only a comment\n", []),
        ("---\n---\n# nothing\n---\n", []),
        ("a: 1", [A]),
        ("---\na: 1\n---\nb: 2\n...\n", [A, B]),
        ("a: 1\r\n---\r\nb: 2\r\n", [A, B]),
        ("a: 1\n--- # the next\nb: 2", [A, B]),
        ("\ufeffa: 1", [A]),
        ("\ufeff" + '{"a": 1}', [A]),
        ('{"a": 1}', [A]),
        ('\n  {"a": 1}\n', [A]),
        ('{"a": 1}{"b": 2}', [A, B]),
        ('{"a": 1}\n{"b": 2}\n', [A, B]),
        ("text: |\n  ---\n  is not a separator", [{"text": "---\nis not a separator"}]),
        ("----: 1", [{"----": 1}]),
        ("at: 2026-01-02T03:04:05Z", [{"at": "2026-01-02T03:04:05Z"}]),
        ("on: 2026-01-02\n2: x\n2.5: z", [{"true": "2026-01-02", "2": "x", "2.5": "z"}]),
        ("é: ü", [{"é": "ü"}]),
        ("- {'%s': 50%, a%%: 1}\n- {'%s': '%d', a%%: 2}", [[{"%s": "50%", "a%%": 1}, {"%s": "%d", "a%%": 2}]]),
        ("".join(f"- k{n % (FORMS + 9)}: {n}\n" for n in range(3 * FORMS)), [[{f"k{n % (FORMS + 9)}": n} for n in range(3 * FORMS)]]),
        ("a: 1\n---\n'\n---\nb: 2", [A, "f: line 4: not YAML: found unexpected end of stream", B]),
        ("a: 1\n---\nx:\n\ty: 1\n---\nb: 2", [A, "f: line 4: not YAML: found character that cannot start any token", B]),
        ("a: 1\n---\né: 1\nx: \0\n---\nb: 2", [A, "f: line 4: not YAML: control characters are not allowed", B]),
        ("a: 1\n---\nx: *nothing", [A, "f: line 3: not YAML: found undefined alias"]),
        ('{"a": 1', ["f: not JSON: Input data was truncated"]),
        ('{"a": 1}\n{"b": }', [A, "f: line 2: not JSON: Expecting value"]),
        (b"a: \xff", ["f: is not UTF-8 (byte 3)"]),
        # YAML in flow style, which is not JSON
        ("{a: 1}", [A]),
        ("{a: 1}\n---\nb: 2\n", [A, B]),
        ('{"a": 1}\n---\nb: 2\n', [A, B]),
        ('{"a": 1,}', [A]),
        ("# a comment\n{a: 1}", [A]),
        ("{a: 1}\n---\nb: [", [A, "f: line 4: not YAML: did not find expected node content"]),
        ("{", ["f: not JSON: Input data was truncated"]),
        ("{a: [}", ["f: line 1: not YAML: did not find expected node content"]),
        # files that were written one behind the other, and other encodings
        ("a: 1\n---\n\ufeffb: 2", [A, B]),
        ("\ufeffa: 1\n\ufeff---\nb: 2", [A, B]),
        ('{"a": 1}\n\ufeff{"b": 2}', [A, B]),
        ("a: 1".encode("utf-16"), [A]),
        ("a: 1".encode("utf-16-le"), [A]),
        ("a: 1".encode("utf-16-be"), [A]),
        ("\ufeffa: 1".encode("utf-16-be"), [A]),
        ("a: 1".encode("utf-32"), [A]),
        ("a: 1".encode("utf-32-be"), [A]),
        ("a: 1".encode("utf-32-le"), [A]),
        ('{"a": 1}'.encode("utf-16"), [A]),
        ('{"é": 1}'.encode("utf-16"), [{"é": 1}]),
        (b"\xff\xfea", ["f: is not UTF-16-LE (byte 2)"]),
        # templates
        ("{{- if .on }}\na: 1\n{{- end }}", ["f: line 1: a template: render it first"]),
        ("a: 1\n---\nb: {{ .b }}\n", ["f: line 3: a template: render it first"]),
        ("a: {{ .a }}\n---\nb: {{ .b }}\n", ["f: line 1: a template: render it first"]),
        ("{% if on %}\na: 1\n", ["f: line 1: a template: render it first"]),
        ("a: 1\n<% if on %>\n", ["f: line 2: a template: render it first"]),
        ('{"a": {{ .a }}}', ["f: line 1: a template: render it first"]),
        ("a: 1\nb: {c: ${C}}", ["f: line 2: a template: render it first"]),
        ('a: "{{ .a }}"', [{"a": "{{ .a }}"}]),
    ],
)  # fmt: skip
def test_documents_of_a_file(data: bytes | str, found: list[object]) -> None:
    assert parsed(data) == found


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("a: .inf", id="a number that JSON does not have"),
        pytest.param("a: 1e400", id="a number that is too large"),
        pytest.param("a: !unknown x", id="an unknown tag"),
        pytest.param("a: !unknown {}", id="an unknown tag of a mapping"),
        pytest.param("~: 1", id="a key that is null"),
        pytest.param("? [a]\n: 1", id="a key that is a list"),
        pytest.param("a:\n  <<: 1", id="a merge of something else than a mapping"),
        pytest.param("a: 1\n...\nb: 2", id="a second document without a separator"),
        pytest.param("a: !!int x", id="a tag of another type"),
        pytest.param("a: !!timestamp x", id="an invalid timestamp"),
        pytest.param("a: " + "1" * 5000, id="5,000 digits"),
        pytest.param("[" * 1_000_000, id="flow style 1,000,000 deep"),
        pytest.param("a: {" * 100_000, id="mappings 100,000 deep"),
        pytest.param("- " * 100_000, id="lists in one line 100,000 deep"),
        pytest.param("? " * 100_000, id="keys 100,000 deep"),
        pytest.param(
            "".join(f"{' ' * n}a:\n{' ' * n}- b:\n" for n in range(6000)), id="indentation 6,000 deep"
        ),
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, id="JSON 100,000 deep"),
    ],
)
def test_documents_that_break_the_parsers_are_problems(data: str) -> None:
    assert [
        item for item in parsed("b: 2\n---\n" + data if data[0] != "{" else data) if isinstance(item, str)
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("Null", None), ("nULL", "nULL"), ('""', ""), ("'~'", "~"),
        ("y", True), ("Yes", True), ("ON", True), ("N", False), ("off", False), ("oN", "oN"), ('"on"', "on"),
        ("0", 0), ("-0", 0), ("+12", 12), ("1_000", 1000), ("0x1F", 31), ("0b101", 5), ("0o17", 15), ("017", 15), ("-017", -15),
        ("08", 8), ("80.0", 80), ("8.5", 8.5), (".5", 0.5), ("1e3", 1000), ("1E-1", 0.1), ("0b_", "0b_"), ("0x", "0x"),
        ("1:30", "1:30"), ("1.2.3", "1.2.3"), ("10.0.0.1", "10.0.0.1"), ("1_000_pods", "1_000_pods"), ("-", "f: line 1: not YAML"),
        ("- x", "f: line 1: not YAML"), ("-x", "-x"), ("+", "+"), (".", "."), ("...x", "...x"), ("<<", "<<"),
        ("2026-01-02", "2026-01-02"), ("!!timestamp 2026-01-02", "2026-01-02"), ("!!str 1", "1"), ("! 1", 1), ("!!int '3'", 3), ("!!float 3", 3),
        ("!!bool yes", True), ("!!null ''", None), ("!!binary aGk=", "hi"), ("!!map {}", {}), ("!!set {}", {}), ("! []", []),
        ("!!int 3.5", "f: line 1: not YAML"), ("!!bool 1", "f: line 1: not YAML"),
        ("|\n  a\n  b", "a\nb"), (">\n  a\n  b", "a b"), (r'"\u00e9\x41\n"', "éA\n"), (r'"\""', '"'),
    ],
)  # fmt: skip
def test_scalars_have_the_values_that_kubectl_reads(text: str, value: object) -> None:
    (found,) = parsed(f"v: {text}")
    assert found == {"v": value} or (str(value).startswith("f: ") and str(found).startswith(str(value)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: &x 1\nb: *x\nc: &x 2\nd: *x", {"a": 1, "b": 1, "c": 2, "d": 2}),
        ("a: &x {k: 1}\nb: {<<: *x, l: 2}", {"a": {"k": 1}, "b": {"k": 1, "l": 2}}),
        ("a: &x {k: 1}\nb: {k: 3, <<: *x}", {"a": {"k": 1}, "b": {"k": 3}}),
        ("a: &x {k: 1}\nb: &y {k: 2, m: 3}\nc: {<<: [*x, *y]}", {"a": {"k": 1}, "b": {"k": 2, "m": 3}, "c": {"k": 1, "m": 3}}),
        ('a: {"<<": {k: 1}}', {"a": {"<<": {"k": 1}}}),
        ("a: &x [1, *x]", "f: line 1: not YAML: its aliases contain themselves"),
        ("a: &x {b: [*x]}", "f: line 1: not YAML: its aliases contain themselves"),
        ("a: &x [1]\nb:\n- &y [*x, *x]\n- *y", {"a": [1], "b": [[[1], [1]], [[1], [1]]]}),
    ],
)  # fmt: skip
def test_aliases_and_merge_keys(text: str, found: object) -> None:
    assert parsed(text) == [found]


LIST = '{"apiVersion": "v1", "kind": "List", "items": ['
SERVICE = (
    '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 1}]}}'
)


RECURSIVE = "its aliases contain themselves"


def deep(lists: int) -> str:
    return LIST * lists + SERVICE + "]}" * lists


@pytest.mark.parametrize(
    ("text", "services", "message"),
    [
        pytest.param(deep(100), 1, None, id="JSON lists 100 deep"),
        pytest.param(deep(100_000), 0, "JSON is nested too deeply", id="JSON lists 100,000 deep"),
        pytest.param(f"--- {deep(100)}", 1, None, id="lists 100 deep"),
        pytest.param(f"--- {deep(5000)}", 0, "more than 5000 levels", id="lists 5,000 deep"),
        pytest.param(f"--- &a {LIST}*a]}}", 0, RECURSIVE, id="a list that contains itself"),
        pytest.param(f"--- &a {LIST}*a, *a]}}", 0, RECURSIVE, id="a list that contains itself twice"),
        pytest.param(f"--- &a {LIST}{{x: *a}}, {SERVICE}]}}", 0, RECURSIVE, id="a cycle outside of items"),
    ],
)
def test_nested_lists(text: str, services: int, message: str | None) -> None:
    found = list(parse("f", text.encode()))
    result = decode(item for item in found if isinstance(item, Document))
    problems = [*(item for item in found if isinstance(item, Problem)), *result.problems]
    assert len(result.state.services) == services
    messages = [str(problem).rpartition(": ")[2] for problem in problems]
    assert messages == ([] if message is None else [message])


@pytest.mark.parametrize("depth", [300, 500, 700, 900, 1100])
def test_a_list_at_the_recursion_limit_is_read_or_a_problem(depth: int) -> None:
    """The limit depends on the depth of the caller's stack. There must never be a traceback."""
    (document,) = parse("f", f"--- {deep(depth)}".encode())
    assert isinstance(document, Document)
    result = decode([document])
    assert len(result.state.services) + len(result.problems) == 1


@pytest.mark.parametrize(
    ("data", "found"),
    [
        pytest.param("--- {a: 1}", [A], id="content on the separator's line"),
        pytest.param("%YAML 1.1\n---\na: 1", [A], id="a directive"),
        pytest.param('{"a": 1}\n---\n{"b": 2}', [A, B], id="JSON documents, separated as in YAML"),
    ],
)
def test_forms_that_kubectl_reads(data: str, found: list[object]) -> None:
    assert parsed(data) == found


def sources(*paths: Path | str) -> tuple[list[str], list[Problem]]:
    documents, problems = read_documents(map(str, paths))
    return [document.source for document in documents], problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.yaml", "a.yml", "c.json", ".hidden.yaml", "README.md", "d.yaml.bak"):
        (tmp_path / name).write_text("{}" if name == "c.json" else "a: 1")
    (tmp_path / "sub.yaml").mkdir()
    (tmp_path / "sub.yaml" / "e.yaml").write_text("a: 1")
    return tmp_path


def test_a_folder_stands_for_its_manifests_in_order_of_names(folder: Path) -> None:
    assert sources(folder) == ([str(folder / name) for name in ("a.yml", "b.yaml", "c.json")], [])


def test_a_named_file_may_have_any_suffix(folder: Path) -> None:
    assert sources(folder / "README.md", folder / ".hidden.yaml")[1] == []


def test_subfolders_are_read_on_request(folder: Path) -> None:
    for path in ("sub/a.yaml", "sub/deep/b.json", ".hidden/c.yaml", "sub/.hidden.yaml", "sub/d.txt"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("a: 1")
    (folder / "link").symlink_to(folder / "sub")
    top = sources(folder)[0]
    found = {document.source for document in Reader([str(folder)], recursive=True).read().documents}
    assert found - {*top} == {
        str(folder / path) for path in ("sub/a.yaml", "sub/deep/b.json", "sub.yaml/e.yaml")
    }
    assert (has_manifests_below(str(folder)), has_manifests_below(str(folder / "sub/deep"))) == (True, False)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("a: 1", [(1, 1)]),
        ("# x\n\na: 1\n---\n---\n# y\nb: 2\n--- {c: 3}", [(1, 3), (2, 7), (3, 8)]),
        ('{"a": 1}\n\n{"b": 2}', [(1, 1), (2, 3)]),
        ("{a: 1}\n---\nb: 2", [(1, 1), (2, 3)]),
    ],
)
def test_the_places_of_documents(text: str, places: list[tuple[int, int]]) -> None:
    found = [item for item in parse("f", text.encode()) if isinstance(item, Document)]
    assert [(document.number, document.line) for document in found] == places


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a: 1\nb: 2\na: 3", ("a",)),
        ("a: {x: 1, y: 2, x: 3}\nb: {x: 1}\nb: 2", ("x", "b")),
        ("a: {yes: 1, on: 2}", ("true",)),
        ("a: 1\nb: 2", ()),
        ("base: &b {x: 1}\na:\n  <<: *b\n  x: 2", ()),
    ],
)
def test_keys_that_occur_twice(text: str, keys: tuple[str, ...]) -> None:
    (document,) = parse("f", text.encode())
    assert isinstance(document, Document)
    assert document.repeated == keys


def test_a_missing_file_is_a_problem_and_the_others_are_read(folder: Path) -> None:
    missing = str(folder / "nothing.yaml")
    (folder / "dead.yaml").symlink_to("nowhere")
    found, problems = sources(missing, folder, folder / "dead.yaml")
    assert len(found) == 3
    dead = (str(folder / "dead.yaml"), "", "", "No such file or directory")
    assert problems == [(missing, "", "", "No such file or directory"), dead, dead]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a: 1\n---\nb: 2")))
    documents, problems = read_documents(["-"])
    assert [(each.source, each.number, each.line) for each in documents] == [
        ("standard input", 1, 1),
        ("standard input", 2, 3),
    ]
    assert problems == []


def test_a_repeated_path_is_read_twice(folder: Path) -> None:
    assert len(sources(folder / "b.yaml", folder / "b.yaml")[0]) == 2


def _linked(folder: Path, to: str) -> None:
    """Replace a link as a ConfigMap volume does."""
    (folder / "..new").symlink_to(to)
    (folder / "..new").rename(folder / "..data")


def _make_folder(folder: Path) -> None:
    (folder / "a.yaml").unlink()
    (folder / "a.yaml").mkdir()


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "content": (lambda f: (f / "a.yaml").write_text("a: 2"), ["a.yaml"]),
    "two files": (lambda f: [(f / f"{n}.yaml").write_text("a: 3") for n in "ab"], ["a.yaml", "b.yaml"]),
    "invalid": (lambda f: (f / "a.yaml").write_text("{"), ["a.yaml"]),
    "new": (lambda f: (f / "aa.yaml").write_text("a: 4"), ["aa.yaml"]),
    "deleted": (lambda f: (f / "b.yaml").unlink(), ["b.yaml"]),
    "renamed": (lambda f: (f / "a.yaml").rename(f / "c.yaml"), ["a.yaml", "c.yaml"]),
    "a folder instead": (_make_folder, ["a.yaml"]),
    "under another name first": (
        lambda f: (f / ".new").write_text("a: 5") and (f / ".new").rename(f / "b.yaml"),
        [".new", "b.yaml"],
    ),
    "behind a link": (lambda f: _linked(f, "..two"), ["..new", "..data"]),
    "not a manifest": (lambda f: (f / "notes.txt").write_text("a: 6"), ["notes.txt"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_named_files_are_read_as_all_are(change: str, tmp_path: Path) -> None:
    for place in ("..one", "..two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "linked.yaml").write_text(f"a: {place}")
    _linked(tmp_path, "..one")
    (tmp_path / "linked.yaml").symlink_to("..data/linked.yaml")
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("a: 1\n---\na: 2\n")
    paths = [str(tmp_path), str(tmp_path / "b.yaml")]
    reader = Reader(paths)
    assert reader.read(named=[]) == Reader(paths).read()
    make, names = CHANGES[change]
    make(tmp_path)
    assert reader.read(named=[tmp_path / name for name in names]) == Reader(paths).read()


def test_files_that_are_not_named_are_not_looked_at(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("a: 1")
    reader = Reader([str(tmp_path)])
    before = reader.read()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("a: 2")
    found = reader.read(named=[tmp_path / "a.yaml"]).documents
    assert [bytes(document.content) for document in found] == [b'{"a":2}', b'{"a":1}']
    assert found[1] is before.documents[1]


def test_a_document_is_parsed_again_only_if_its_text_changes(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1\n---\na: 2\n---\na: 3\n")
    reader = Reader([str(file)])
    before = reader.read().documents
    file.write_text("a: 1\n---\na: 22\nb: 2\n---\na: 3\n")
    after = reader.read(named=[file]).documents
    assert after == Reader([str(file)]).read().documents
    assert [a is b for a, b in zip(after, before, strict=True)] == [True, False, False]
    assert after[2].content is before[2].content
    assert [document.line for document in (before[2], after[2])] == [5, 6]


@pytest.mark.parametrize(("hours", "reads"), [(-1, 1), (0, 2), (1, 1)])
def test_an_unchanged_file_is_read_once_whatever_the_clock_says(
    hours: int, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directly after a change, it is read again, because the next change may have the same timestamp."""
    file, read = tmp_path / "a.yaml", list[Path]()
    file.write_text("a: 1")
    now = file.stat().st_ctime_ns + hours * 3600 * 10**9
    monkeypatch.setattr(files, "time", SimpleNamespace(time_ns=lambda: now, thread_time=time.thread_time))

    def content_of(file: Path, pipes: bool) -> bytes | bytearray:
        read.append(file)
        return file.read_bytes()

    monkeypatch.setattr(files, "content_of", content_of)
    reader = Reader([str(tmp_path)])
    assert reader.read() == reader.read()
    assert len(read) == reads


def test_a_path_that_cannot_be_accessed_is_polled(tmp_path: Path) -> None:
    """For example on a network file system that is unreachable."""

    async def begin() -> None:
        async for _ in changes([str(tmp_path / ("x" * 300))]):
            return

    asyncio.run(begin())
