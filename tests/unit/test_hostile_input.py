"""Files that are written to end kproxy, or to hold it up: each is a problem that names the file."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from socket import AF_UNIX, socket
from typing import Any, NoReturn

import msgspec
import pytest

from kproxy.decode import Decoded, Document, decode, wire
from kproxy.decode.objects import CAUSES
from kproxy.limits import OBJECT_ITEMS, PROBLEMS_OF_FILE
from kproxy.model import NamespacedName
from kproxy.problems import InvalidResponseError, Problem, UsageError
from kproxy.settings.kubeproxy import KIND
from kproxy.sources import documents as documents_module
from kproxy.sources import files
from kproxy.sources.cluster.core.formats import Json
from kproxy.sources.cluster.core.resources import SERVICES
from kproxy.sources.cluster.credentials import Credentials, CredentialsError
from kproxy.sources.cluster.failures import StatusError
from kproxy.sources.cluster.reflector import Pacing, Reflector
from kproxy.sources.configuration import read_configuration
from kproxy.sources.documents import GivenUp, parse
from kproxy.sources.files import Reader, read_documents

DIGITS = "9" * 5000
DEEP = 100_000
WEB = '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"%s}, "spec": {"ports": [{"port": 80}]%s}}'


def lists(levels: int, width: int) -> str:
    """Lists of aliases: `width ** levels` items, in `levels` lines."""
    rows = ["v0: &v0 [x]"]
    rows += [f"v{n}: &v{n} [{', '.join([f'*v{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(rows)


def merges(levels: int, width: int) -> str:
    """Mappings that merge others, which merge others."""
    rows = ["v0: &v0 {a: 1}"]
    rows += [f"v{n}: &v{n} {{<<: [{', '.join([f'*v{n - 1}'] * width)}]}}" for n in range(1, levels)]
    return "\n".join(rows)


def read(data: bytes | str) -> tuple[Decoded, list[str]]:
    """What a file contains, and all its problems."""
    found = list(parse("f", data.encode() if isinstance(data, str) else data))
    decoded = decode(item for item in found if isinstance(item, Document))
    problems = [item for item in found if isinstance(item, Problem)] + decoded.problems
    assert all(problem.source == "f" for problem in problems)
    return decoded, [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(lists(20, 9), "stand for more than", id="lists of aliases"),
        pytest.param("---\n" * 200_002, "has more than 200000 documents", id="many documents"),
        pytest.param(f'{{"apiVersion": "v1", "kind": "List", "items": [{"1," * 200_000}1]}}', "more than 200000 objects in a file", id="many objects"),
        pytest.param(f'{{"apiVersion": "v1", "kind": "List", "items": [{"1," * 3_000_000}1]}}', "has more than 3,000,000 values", id="many values"),
        pytest.param(f'{{"kind": "Service", "x": [{"{}," * 1_500_000}1]}}{{}}', "has more than 3,000,000 values", id="many values in one of several texts"),
        pytest.param("a: &a [*a]", "contain themselves", id="an alias in itself"),
        pytest.param("a: &a {b: &b [*a]}", "contain themselves", id="an alias in a part of itself"),
        pytest.param(f"a: &a {'x' * 9000}\nb: [{'*a, ' * 9000}]", "stand for more than", id="a long text, often"),
        pytest.param("".join(f"[&a{n} " for n in range(3000)) + "x" * 1_000_000 + "]" * 3000, "below many levels", id="anchors on many levels"),
        pytest.param('{"a": 1}\n{"a": ' + DIGITS + "}", "kind: is missing", id="the second text has a huge number"),
        pytest.param('{"a": 1}\n{"a": ' + "[" * DEEP, "JSON is nested too deeply", id="the second is deep"),
        pytest.param("[" * DEEP, "YAML is nested too deeply", id="deep lists in YAML"),
        pytest.param('{"a": 1}\n{"a": "\udc80"}'.encode(errors="surrogateescape"), "is not UTF-8", id="UTF-8"),
        pytest.param(b'\0\0\0{\xff\xff\xff\xff', "is not UTF-32-BE", id="UTF-32"),
        pytest.param('{"a": "\\ud800"}', "not JSON", id="half of a pair of surrogates"),
        pytest.param(f"a: {DIGITS}", "line 1: not YAML: Exceeds the limit", id="a huge number in YAML"),
        pytest.param("a: !!int {}", "line 1: not YAML", id="a number that is a mapping"),
        pytest.param("a: !!timestamp x", "line 1: not YAML", id="a time that is none"),
        pytest.param("? [a]\n: b", "not YAML", id="a list as a key"),
        pytest.param("\n" * 60 + "a: 1", "kind: is missing", id="empty lines"),
        pytest.param(" " * 60 + "# x\n" * 60 + "a: 1", "kind: is missing", id="empty lines and comments"),
    ],
)  # fmt: skip
def test_a_file_is_a_problem(data: bytes | str, message: str) -> None:
    _, problems = read(data)
    assert problems
    assert any(message in problem for problem in problems)


@pytest.mark.parametrize(
    ("metadata", "spec", "message"),
    [
        pytest.param("", f', "unknown": {DIGITS}', "", id="a huge number in an unknown field"),
        pytest.param("", f', "x": {"[" * 800}{"]" * 800}', "", id="an unknown field that is deep"),
        pytest.param("", f', "healthCheckNodePort": {DIGITS}', "out of range", id="a huge number"),
        pytest.param("", ', "healthCheckNodePort": 1e400', "healthCheckNodePort", id="1e400"),
        pytest.param("", ', "externalName": "\udc80"', "is not UTF-8", id="not UTF-8"),
        pytest.param(', "\udc80": 1', "", "", id="a field whose name is not UTF-8"),
        pytest.param(', "uid": "\udc80"', "", "is not UTF-8", id="metadata that is not UTF-8"),
        pytest.param(
            ', "namespace": {"a": []}', "", "metadata.namespace", id="a namespace that is an object"
        ),
        pytest.param("", f', "externalIPs": ["{"0" * 2_000_000}x.1"]', "too long", id="an address of zeros"),
        pytest.param("", f', "{"y" * 2_000_000}": 1', "", id="a long unknown field"),
        pytest.param("", "".join(f', "z{n}": 1' for n in range(20_000)), "", id="20,000 unknown fields"),
    ],
)
def test_an_object_is_used_or_a_problem(metadata: str, spec: str, message: str) -> None:
    decoded, problems = read((WEB % (metadata, spec)).encode(errors="surrogateescape"))
    assert (message in problems[0]) if problems else not message
    assert len(decoded.warnings) <= 60
    assert decoded.state.services or decoded.unreadable
    assert problems == [] or "Service default/web" in problems[0] or "namespace" in message


def test_of_many_problems_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}" * 250)
    (tmp_path / "b.yaml").write_text("[\n---\n" * 250)
    found, problems = read_documents([str(tmp_path)])
    decoded = decode(found)
    for each in (problems, decoded.problems):
        assert len(each) == PROBLEMS_OF_FILE + 1
        assert each[-1].message == "and 200 more problems"
    assert len(decoded.unreadable.causes(NamespacedName("default", "web"))) == CAUSES


def test_a_kind_of_any_length_resembles_no_known_kind() -> None:
    decoded, _ = read(f'{{"apiVersion": "v1", "kind": "{"Servicf" * 500_000}"}}')
    assert decoded.ignored.total() == 1


def test_many_ports_take_time_in_proportion_to_their_number() -> None:
    ports = ", ".join(f'{{"name": "p{port}", "port": {port}}}' for port in range(1, OBJECT_ITEMS + 1))
    decoded, problems = read(WEB.replace('[{"port": 80}]', f"[{ports}]") % ("", ""))
    assert not problems
    assert len(decoded.state.services) == 1


@pytest.mark.parametrize("data", [b"a: {b: 1}\n" * 20_000, b"a: 1\n---\n" * 10, b'{"a": 1}\n' * 10])
def test_parsing_can_be_given_up(data: bytes) -> None:
    calls = iter(range(3))

    def check() -> None:
        if next(calls) == 2:
            raise GivenUp("enough")

    with pytest.raises(GivenUp, match="enough"):
        list(parse("f", data, check))


def test_a_file_that_is_deleted_while_it_is_read_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1")
    monkeypatch.setattr(files, "content_of", lambda path, pipes: (path.unlink(), b"a: 1\n---\n" * 9)[1])
    _, problems = read_documents([str(path)])
    assert ["was given up: it was deleted" in problem.message for problem in problems] == [True]


@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: socket(AF_UNIX).bind(str(path))], ids=["pipe", "socket"]
)
def test_what_is_not_a_file_is_a_problem_in_a_folder(make: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("a: 1")
    make(tmp_path / "a.yaml")
    documents, problems = read_documents([str(tmp_path)])
    assert len(documents) == 1
    assert problems == [Problem(str(tmp_path / "a.yaml"), "", "", "is not a regular file")]


def test_a_program_that_follows_files_does_not_wait_for_the_writer_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    read = Reader([str(tmp_path / "a.yaml"), "/dev/zero"], pipes=False).read()
    assert [problem.message for problem in read.problems] == ["is not a regular file"] * 2


def test_a_command_reads_a_pipe_and_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a: 1")
    os.close(writer)
    monkeypatch.setattr(files, "FILE_BYTES", 1000)
    monkeypatch.setattr(documents_module, "FILE_BYTES", 1000)
    found, problems = read_documents([f"/dev/fd/{reader}", "/dev/zero"])
    os.close(reader)
    assert [bytes(document.content) for document in found] == [b'{"a":1}']
    assert [problem.message for problem in problems] == ["is too large: more than 0 MiB"]


@pytest.mark.parametrize(("items", "is_kept"), [(b"1, 2", True), (b"1, 2, 3", False)])
def test_the_items_of_a_list_that_has_too_many_are_not_kept(
    items: bytes, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents_module, "DOCUMENTS", 2)
    (found,) = documents_module.parse("f", b'{"kind": "List", "items": [%s]}' % items)
    assert isinstance(found, Document)
    assert (found.head is not None) == is_kept


def test_yaml_has_as_many_values_as_json_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents_module, "FILE_VALUES", 100)
    few, many = ("".join(f"- {number}\n" for number in range(count)) for count in (90, 110))
    documents = list(documents_module.parse("f", f"a:\n{few}---\na:\n{many}".encode()))
    assert isinstance(documents[0], Document)
    assert isinstance(documents[1], Problem)
    assert documents[1].message == "has more than 100 values"


def test_a_name_that_is_not_utf_8_is_shown_in_ascii(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"x\xff.yaml")).write_text("a: 1\n---\n[")
    (document,), (problem,) = read_documents([str(tmp_path)])
    assert document.source == problem.source == str(tmp_path / "x\\xff.yaml")


def test_links_that_lead_to_themselves_are_problems(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("a.yaml")
    (tmp_path / "b.yaml").symlink_to(".")
    (_, problems) = read_documents([str(tmp_path)])
    assert [problem.message for problem in problems] == ["Too many levels of symbolic links"]
    assert [each.message for each in Reader([str(tmp_path)], recursive=True).read().problems] == [
        "Too many levels of symbolic links"
    ]


def test_mappings_that_merge_others_stay_small() -> None:
    (found,) = parse("f", merges(20, 9).encode())
    assert isinstance(found, Document)
    assert bytes(found.content).endswith(b'"v19":{"a":1}}')


def test_aliases_of_a_usual_size_are_read() -> None:
    ports = "ports: &p\n- {name: a, port: 80}\n- {name: b, port: 81}\n"
    (found,) = parse("f", (ports + "items:\n" + "- *p\n" * 10_000).encode())
    assert isinstance(found, Document)
    assert len(msgspec.json.decode(found.content)["items"]) == 10_000


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"kind: {KIND}\nx: {'{x: ' * 2000}{'}' * 2000}", id="deep"),
        pytest.param(f"kind: {KIND}\nmetricsBindAddress: {DIGITS}", id="a huge number"),
        pytest.param(f'{{"kind": "{KIND}", "conntrack": {{"min": {DIGITS}}}}}', id="a huge number in JSON"),
        pytest.param(f'{{"kind": "{KIND}", "x": ' + '{"x": ' * 900 + "1" + "}" * 901, id="deep in JSON"),
        pytest.param(lists(20, 9), id="aliases"),
        pytest.param("\0", id="a null byte"),
    ],
)
def test_a_configuration_file_is_an_error_of_usage(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"config\.yaml"):
        read_configuration(str(path))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (f'"spec": {{"healthCheckNodePort": {DIGITS}}}', "out of range"),
        ('"spec": {"ports": [{"port": 1e400}]}', "ports"),
        ('"spec": {"externalName": "\udc80"}', "is not UTF-8"),
        ('"spec": {"ports": [{"port": 80}], "type": "' + "x" * 100_000 + '"}', None),
    ],
    ids=["a huge number", "1e400", "not UTF-8", "a long value"],
)
def test_a_bad_object_of_a_cluster_is_a_problem_and_the_others_are_used(
    part: str, message: str | None
) -> None:
    bad = f'{{"metadata": {{"name": "bad", "namespace": "n"}}, {part}}}'
    good = '{"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}'
    page = f'{{"metadata": {{}}, "items": [{bad}, {good}]}}'.encode(errors="surrogateescape")
    _, (first, second) = Json().read_page(SERVICES, page)
    line = f'{{"type": "ADDED", "object": {bad}}}'.encode(errors="surrogateescape")
    assert second.model is not None
    for change in (first, Json().read_event(SERVICES, line).change):
        assert change is not None
        assert change.undecodable is not None
        assert message is None or message in str(change.undecodable)
        assert change.key in ((("n", "bad")), ("", ""))


@pytest.mark.parametrize(
    "text", ["[" * DEEP, '{"a": "\udc80"}', '{"type": "ADDED", "object": "\\ud800"}', "\0", ""]
)
def test_a_response_that_is_not_of_an_api_server_is_an_error_of_the_connection(text: str) -> None:
    data = text.encode(errors="surrogateescape")
    with pytest.raises(InvalidResponseError):
        Json().read_page(SERVICES, data)
    with pytest.raises(InvalidResponseError):
        Json().read_event(SERVICES, data)
    assert Json().read_status(data) == wire.Status()


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("9" * 400, 300), ("9" * 5000, 300), ("soon", 0), ("²", 0), (None, 0)]
)
def test_a_server_can_request_a_limited_delay(header: str | None, seconds: float) -> None:
    assert StatusError(wire.Status(), 429, header).retry_after == seconds


class Raising:
    """A connection whose requests fail with an error that no client library declares."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get(self, *_: object) -> NoReturn:
        raise self._error


@pytest.mark.parametrize(
    "error", [ValueError("port"), UnicodeError("x"), RecursionError(), MemoryError(), KeyError("a")]
)
def test_an_unexpected_error_of_a_request_does_not_end_following(error: Exception) -> None:
    async def follow() -> str:
        connection: Any = Raising(error)
        reflector = Reflector(connection, SERVICES, lambda _: None, lambda *_: None, Pacing(first_delay=0.01))
        task = asyncio.create_task(reflector.run())
        async with asyncio.timeout(30):
            while reflector.failure is None:
                assert not task.done()
                await asyncio.sleep(0)
        task.cancel()
        return str(reflector.problem(reflector.failure))

    assert "cannot follow Services" in asyncio.run(follow())


def kubeconfig(tmp_path: Path, user: str, server: str = "http://a") -> Credentials:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
        f"clusters: [{{name: k, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {user}}}]\n"
    )
    return Credentials(path)


@pytest.mark.parametrize("token", [b"a\nX: y", b"\xc3\xa9", b"\xff", b"\0", b""], ids=repr)
def test_a_token_that_no_header_can_have_is_an_error(token: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"ok")
    credentials = kubeconfig(tmp_path, "{tokenFile: token}")
    credentials.load()
    (tmp_path / "token").write_bytes(token)
    with pytest.raises(CredentialsError, match="kubeconfig: "):
        credentials.authorization()


@pytest.mark.parametrize("name", ["kubeconfig", "token"])
def test_credentials_are_read_from_files_only(name: str, tmp_path: Path) -> None:
    credentials = kubeconfig(tmp_path, "{tokenFile: token}")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    act = credentials.load if name == "kubeconfig" else credentials.authorization
    if name == "token":
        credentials.load()
    with pytest.raises(CredentialsError, match="is not a regular file"):
        act()


@pytest.mark.parametrize("text", [lists(20, 9), "[" * DEEP, f"a: {DIGITS}", '{"a": "\udc80"}', "\0"])
def test_a_hostile_kubeconfig_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "kubeconfig").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CredentialsError, match="kubeconfig"):
        Credentials(tmp_path / "kubeconfig").load()
