"""Each line of queries.txt, asked with dig over UDP and TCP, IPv4 and IPv6, from a running server."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.dns.__main__ import manifests
from bench.dns.changes import replacing, write
from kproxy.sources.folder import SELDOM
from tests.dnszone.serving import dig, server, serving
from tests.dnszone.table import ROWS, WORLD, check
from tests.support import eventually
from tests.unit.make import service

ASKED = [row for row in ROWS if row.kind not in ("AXFR", "IXFR", "SOA", "ANY")]
"""dig asks for transfers over TCP only, and a running server has another serial number."""


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    cidrs = ("--service-cidr", "10.96.0.0/16,fd00:10:96::/112")
    with serving(WORLD, tmp_path_factory.mktemp("state"), *cidrs) as found:
        yield found


def mixed(text: str) -> str:
    """The text with every second letter in upper case."""
    return "".join(letter.upper() if place % 2 else letter for place, letter in enumerate(text))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("protocol", ["+notcp", "+tcp"])
def test_the_table(ports: dict[str, int], host: str, protocol: str) -> None:
    queries = [f"{mixed(row.name.to_text())} {row.kind}" for row in ASKED]
    replies = dig(host, ports[host], queries, protocol)
    for row, reply in zip(ASKED, replies, strict=True):
        check(row, reply)


def test_more_than_a_hundred_queries_are_asked() -> None:
    assert len(ASKED) > 100


def test_an_alias_to_a_name_elsewhere_is_the_answer_of_a_server_without_upstream(
    ports: dict[str, int],
) -> None:
    (reply,) = dig("127.0.0.1", ports["127.0.0.1"], ["ext.default.svc.cluster.local A"])
    assert (reply.code, len(reply.answer)) == ("NOERROR", 1)


def test_a_name_outside_is_refused(ports: dict[str, int]) -> None:
    (reply,) = dig("127.0.0.1", ports["127.0.0.1"], ["example.org A"])
    assert (reply.code, reply.answer) == ("REFUSED", frozenset())


def write_web(file: Path, number: int) -> None:
    """Write a file with a Service whose ClusterIP ends with a number, or replace it."""
    new = file.with_name(".new")
    new.write_bytes(msgspec.json.encode(service("web", clusterIP=f"10.96.0.{number}")))
    new.replace(file)


def address(port: int) -> str:
    """Ask for the ClusterIP of the Service."""
    (reply,) = dig("::1", port, ["web.default.svc.cluster.local A"])
    (line,) = reply.answer
    return line.split()[-1]


def test_a_change_of_a_file_changes_the_answer(tmp_path: Path) -> None:
    folder = tmp_path / "services"
    folder.mkdir()
    file = folder / "web.yaml"
    write_web(file, 20)
    with serving(folder, tmp_path / "state") as found:
        assert address(found["::1"]) == "10.96.0.20"
        write_web(file, 21)
        eventually(lambda: address(found["::1"]) == "10.96.0.21")


def test_sighup_reads_all_files_again(tmp_path: Path) -> None:
    """Without it, a change behind a link to another folder is read a minute later."""
    folder = tmp_path / "services"
    folder.mkdir()
    file = tmp_path / "elsewhere" / "web.yaml"
    file.parent.mkdir()
    write_web(file, 20)
    (folder / "web.yaml").symlink_to(file)
    with server(folder, tmp_path / "state") as (process, ports):
        write_web(file, 21)
        process.send_signal(signal.SIGHUP)
        eventually(lambda: address(ports["::1"]) == "10.96.0.21", patience=SELDOM / 2)


HANGING = """
import sys, threading
from unittest.mock import patch
from kproxy import cli

def hang(*_):
    print("hangs", flush=True)
    threading.Event().wait()

with patch("kproxy.daemon.dns.find_node", hang):
    cli.main(sys.argv[1:])
"""


def test_a_second_sigterm_ends_it_immediately(tmp_path: Path) -> None:
    """A thread hangs, as with a file server that does not respond."""
    flags = ("-f", str(WORLD), "--state-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--node-name", "n1")
    command = [sys.executable, "-c", HANGING, "dns", "serve", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "hangs\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.terminate()
        try:
            assert process.wait(30) == -signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.long
@pytest.mark.parametrize("endpoints", [3, 5_000])
def test_no_answer_is_empty_or_old_while_an_endpoint_is_replaced(endpoints: int, tmp_path: Path) -> None:
    folder = tmp_path / "services"
    folder.mkdir()
    (folder / "web.json").write_text(manifests(1_000))
    write(folder, endpoints, 0)
    with serving(folder, tmp_path / "state") as found:
        seconds, counts = replacing(folder, found["127.0.0.1"], endpoints, count=300)
    assert len(seconds) == 300
    assert counts.answered > 10_000
    assert (counts.empty, counts.wrong) == (0, 0)
