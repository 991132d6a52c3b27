"""`kproxy run` owns its tables: other programs cannot change them, and the next kproxy adopts them."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import http_get, many

from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.kernel.structure import TableState, read_table
from kproxy.model import Family
from kproxy.nft.structure import TableFlags
from tests import forkserver
from tests.connections import Opened, accepting, opening
from tests.support import (
    EDITABLE,
    FAMILIES,
    SERVICE_IP,
    Kproxy,
    Manifest,
    Running,
    eventually,
    probed_pod,
    service,
    slices,
    sticky,
)

pytestmark = pytest.mark.lab


def kernel_can() -> bool:
    with Rehearsal() as rehearsal:
        return rehearsal.can_own_tables()


needs_owners = pytest.mark.skipif(
    not kernel_can(), reason="before Linux 6.9 a table cannot have an owner and stay"
)

PODS = ("pod-1", "pod-2")
PORT = 9000
RATE = 500
"""Connections per second."""
TIMES = 20
EDITS = (
    "flush ruleset",
    "delete table ip kproxy",
    "flush table ip kproxy",
    "add rule ip kproxy services drop",
    "flush map ip kproxy services",
    "add element ip kproxy cluster-ips { 192.0.2.1 }",
    "add table ip kproxy { flags dormant; }",
)


def table(node: Handle, family: Family = Family.IPV4) -> TableState | None:
    def read() -> TableState | None:
        with Netlink() as netlink:
            return read_table(netlink, family)

    return node.inside(read)


def flags(node: Handle) -> list[TableFlags | None]:
    """Return the flags of both tables; None for a table that does not exist."""
    found = [table(node, family) for family in Family]
    return [state.flags if state else None for state in found]


def edit(node: Handle, script: str) -> int:
    """Run an nft script. Returns the exit status."""
    return int(node.run(["nft", script], capture_output=True).returncode)


@contextmanager
def serving(lab: Lab, running: Running, services: int = 1) -> Iterator[list[str]]:
    """Serve Services whose only endpoint accepts connections. Yields their IPv4 addresses."""
    ips = [f"10.96.{20 + n // 250}.{n % 250 + 1}" for n in range(services)]
    objects: list[Manifest] = []
    for number, address in enumerate(ips):
        name = f"s-{number}"
        port = {"port": 80, "targetPort": PORT}
        objects.append(service(name, port, families=(4,), cluster_ips={4: address}))
        objects += slices(lab, ["pod-1"], PORT, name)[:1]
    running.write("services", *objects)
    with accepting(lab.pod("pod-1"), PORT):
        eventually(lambda: is_open(lab.client("outside"), ips[-1]), running.logged)
        yield ips


def is_open(client: Handle, address: str) -> bool:
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        return sock.connect_ex((address, 80)) == 0


@contextmanager
def traffic(lab: Lab, tmp_path: Path, services: int) -> Iterator[tuple[Running, Opened]]:
    """Run kproxy on node n1 with this many Services, and open connections to them without pause."""
    with (
        Running(lab.node("n1"), tmp_path) as running,
        serving(lab, running, services) as addresses,
        opening(lab.client("outside"), addresses, 80, RATE) as opened,
    ):
        yield running, opened


# --- the owner ---


@needs_owners
def test_other_programs_cannot_change_the_tables(lab: Lab, tmp_path: Path) -> None:
    node = lab.node("n1")
    with traffic(lab, tmp_path, 300) as (running, opened):
        assert "kproxy owns its tables: other programs cannot change them" in running.logged()
        assert flags(node) == [TableFlags.OWNED] * 2
        before = running.kproxy.ruleset()
        for _, script in zip(range(TIMES), cycle(EDITS[1:])):
            assert edit(node, "flush ruleset") == 0
            assert edit(node, script) == 1
        opened.more(RATE)
        assert (opened.failures, opened.repeated) == ({}, 0)
        assert without_counters(running.kproxy.ruleset()) == without_counters(before)
        assert "rewritten" not in running.logged()


def without_counters(listing: str) -> list[str]:
    return [line.partition(" counter packets")[0] for line in listing.splitlines()]


@needs_owners
def test_the_next_kproxy_adopts_the_tables(lab: Lab, tmp_path: Path) -> None:
    """A process of an exec probe that outlives the first kproxy does not keep the tables."""
    node, probing = lab.node("n1"), tmp_path / "probing"
    probe = {"exec": {"command": ["sh", "-c", f"touch {probing}; sleep 60"]}, "timeoutSeconds": 60}
    with Running(node, tmp_path, ["--probe-exec", "env POD={pod}"]) as running:
        running.write("web", service(), *slices(lab, PODS))
        running.write("pod", probed_pod(lab, "pod-3", probe))
        eventually(lambda: "-> 2 endpoints" in running.logged(), running.logged)
        eventually(probing.exists, running.logged)
        state = table(node)
        running.stop(signal.SIGKILL)
        assert flags(node) == [TableFlags.PERSIST] * 2
        assert http_get(lab.client("outside"), SERVICE_IP[4], 80).pod in PODS
        generation = running.kproxy.generation()
        running.start()
        assert flags(node) == [TableFlags.OWNED] * 2
        assert table(node) != state
        assert running.kproxy.generation() == generation + len(Family)
        assert running.stop() == 0
        assert flags(node) == [TableFlags.PERSIST] * 2
        assert http_get(lab.client("outside"), SERVICE_IP[6], 80).pod in PODS


@needs_owners
def test_a_table_without_flags_is_replaced_and_loses_nothing(lab: Lab, tmp_path: Path) -> None:
    """A table of `kproxy sync`, or of a kproxy that did not own its tables."""
    node, client = lab.node("n1"), lab.client("outside")
    manifests = service(**sticky()), *slices(lab, PODS)
    with Running(node, tmp_path, EDITABLE) as running:
        running.write("web", *manifests)
        eventually(lambda: "-> 2 endpoints" in running.logged(), running.logged)
        assert flags(node) == [TableFlags.NONE] * 2
        assert "does not own its tables (--no-table-owner)" in running.logged()

        def answering() -> list[set[str]]:
            return [set(many(client, SERVICE_IP[family], 80, 4, concurrency=1)) for family in FAMILIES]

        stays = answering()
        assert [len(pods) for pods in stays] == [1, 1]
        with serving(lab, running) as addresses, opening(client, addresses, 80, RATE) as opened:
            running.stop()
            running.flags = ()
            running.start()
            assert flags(node) == [TableFlags.OWNED] * 2
            opened.more(20)
            running.stop()
            running.flags = EDITABLE
            running.start()
            assert flags(node) == [TableFlags.NONE] * 2
            opened.more(20)
        assert (opened.failures, opened.repeated) == ({}, 0)
        assert answering() == stays
        assert "rewritten" not in running.logged()


@needs_owners
@pytest.mark.parametrize("verb", ["sync", "cleanup", "run"])
def test_commands_beside_the_owner_name_it_and_change_nothing(lab: Lab, tmp_path: Path, verb: str) -> None:
    node = lab.node("n1")
    other = Kproxy(node, tmp_path / "other")
    with Running(node, tmp_path) as running:
        running.write("web", service(), *slices(lab, PODS))
        eventually(lambda: "-> 2 endpoints" in running.logged(), running.logged)
        generation, state = running.kproxy.generation(), table(node)
        assert state is not None
        if verb == "sync":
            done = other.run("sync", service("another"))
        elif verb == "cleanup":
            done = other.cleanup()
        else:
            command = ["run", "--manifests", str(running.manifests), "--state-dir", str(other.state)]
            done = forkserver.run(node, command)
        owner = f"Table ip kproxy belongs to process {running.process.pid} ("
        assert done.returncode == 1
        assert owner in done.stderr
        assert running.kproxy.generation() == generation
        assert other.run("sync", service("another"), flags=["--dry-run"]).returncode == 0
        same = running.kproxy.run("sync", service("another"))
        assert "in use by `kproxy run`" in same.stderr
    if verb == "sync":
        assert "default/another" in other.sync(service("another"))
        assert flags(node) == [TableFlags.NONE] * 2
    elif verb == "cleanup":
        assert other.cleanup().returncode == 0
        assert flags(node) == [None, None]


@needs_owners
def test_the_error_if_another_process_has_become_the_owner(lab: Lab, tmp_path: Path) -> None:
    """Its table was deleted between two lives of kproxy, and another one owns a new table."""
    node = lab.node("n1")
    with Running(node, tmp_path, EDITABLE) as running, Running(node, folder(tmp_path)) as owner:
        eventually(lambda: TableFlags.OWNED in flags(node), owner.logged)
        running.write("web", service(), *slices(lab, PODS))
        eventually(lambda: f"belongs to process {owner.process.pid}" in running.logged(), running.logged)
        owner.stop()
        eventually(lambda: "-> 2 endpoints" in running.logged(), running.logged)
        assert http_get(lab.client("outside"), SERVICE_IP[4], 80).pod in PODS


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "owner"
    made.mkdir()
    return made


def test_a_kernel_without_owners(lab: Lab, tmp_path: Path) -> None:
    """kproxy repairs what other programs change, and says so."""
    node = lab.node("n1")
    with Running(node, tmp_path) as running:
        running.stop()
        edit(node, "flush ruleset")
        running.program = "tests.lacking", "owner"
        running.start()
        assert "does not own its tables (before Linux 6.9 the kernel cannot do that)" in running.logged()
        assert flags(node) == [TableFlags.NONE] * 2
        running.write("web", service(), *slices(lab, PODS))
        eventually(lambda: "-> 2 endpoints" in running.logged(), running.logged)
        for script in EDITS[:3]:
            assert edit(node, script) == 0
            eventually(lambda: set(many(lab.client("outside"), SERVICE_IP[4], 80, 8)) == set(PODS))
        assert "rewritten" in running.logged()


# --- long ---


@needs_owners
@pytest.mark.long
def test_no_connection_fails_among_ten_thousand_services(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = lab.node("n1")
    with traffic(lab, tmp_path, 10_000) as (_, opened):
        for _ in range(TIMES):
            assert edit(node, "flush ruleset") == 0
            assert edit(node, "delete table ip kproxy") == 1
            assert edit(node, "add element ip kproxy cluster-ips { 192.0.2.1 }") == 1
        opened.more(RATE)
    with capsys.disabled():
        print(f"\n{opened.count} connections, {dict(opened.failures)} failed, {opened.repeated} repeated")
    assert (opened.failures, opened.repeated) == ({}, 0)


@needs_owners
@pytest.mark.long
@pytest.mark.parametrize("flushing", [False, True], ids=["killed", "killed and flushed"])
def test_kills_of_the_owner(
    lab: Lab, tmp_path: Path, capsys: pytest.CaptureFixture[str], flushing: bool
) -> None:
    """A restart loses no connection. If another program flushes before it, it costs the time of the start."""
    node, out = lab.node("n1"), []
    with traffic(lab, tmp_path, 300) as (running, opened):
        for _ in range(TIMES):
            running.stop(signal.SIGKILL)
            killed = time.monotonic()
            if flushing:
                assert edit(node, "flush ruleset") == 0
            running.start()
            out.append(time.monotonic() - killed)
            assert flags(node) == [TableFlags.OWNED] * 2
            opened.more(RATE // 10)
    with capsys.disabled():
        failed = sum(opened.failures.values())
        print(f"\n{opened.count} connections, {failed} failed, {opened.repeated} repeated; ", end="")
        print(f"restarts: {min(out):.2f} to {max(out):.2f} s")
    if not flushing:
        assert (opened.failures, opened.repeated) == ({}, 0)
