"""Snapshots over a real control socket, also for slow clients, and clients of another version."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec.structs import replace

import kproxy
from kproxy.cli import main
from kproxy.control.channel import Channel, Revision, serve
from kproxy.control.client import ALL, NEXT, SOCKET, fetch, watch
from kproxy.controlplane.ledger import NOTHING
from kproxy.controlplane.ranges import Ranges
from kproxy.model import Event, Node, format_address
from kproxy.probes.core.readiness import ContainerReadiness, PodReadiness
from kproxy.problems import KproxyError, StateError
from kproxy.show.snapshot import Failure, Snapshot, decode, encode
from kproxy.sources.core.inventory import Inventory
from tests.event_loop import in_event_loop
from tests.resolution import resolve
from tests.unit.make import NODE, decoded, inventory_of, name

OBJECTS = """---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.0.0/24, "fd00::/64"]}}
---
apiVersion: v1
kind: Service
metadata: {name: web, creationTimestamp: "2026-01-05T09:30:00Z", annotations: {kproxy.io/weights: a=2}}
spec:
  type: LoadBalancer
  ipFamilyPolicy: PreferDualStack
  sessionAffinity: ClientIP
  externalTrafficPolicy: Local
  loadBalancerSourceRanges: [192.0.2.0/24, "2001:db8::/32"]
  ports: [{port: 80, targetPort: http}]
  selector: {app: web}
status: {loadBalancer: {ingress: [{ip: 198.51.100.1}, {hostname: example.org}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: web}}
spec:
  nodeName: n1
  containers:
    - {name: main, ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {port: http}}}
    - {name: more, readinessProbe: {exec: {command: [ls]}}}
status: {podIPs: [{ip: 10.244.0.7}, {ip: "fd00::7"}], containerStatuses: [{ready: true, restartCount: 2}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: other}
subsets: [{addresses: [{ip: 10.1.1.1}], ports: [{port: 1}]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  defaultBackend: {service: {name: web, port: {number: 80}}}
  rules: [{http: {paths: [{path: /, pathType: Exact, backend: {service: {name: w, port: {name: h}}}}]}}]
---
{apiVersion: v1, kind: Service, metadata: {name: wrong}, spec: {ports: [{port: 0}]}}
"""
RANGES = Ranges((ip_network("10.96.0.0/12"), ip_network("fd00:96::/112")), (30000, 32767))


def snapshot(services: int = 0) -> Snapshot:
    """Return the snapshot of OBJECTS, and of a number of additional services."""
    more = "".join(
        f"---\n{{kind: Service, apiVersion: v1, metadata: {{name: s-{i}}}, spec: {{ports: [port: 80]}}}}\n"
        for i in range(services)
    )
    found = decoded(OBJECTS + more)
    outcome = resolve(found, NOTHING, RANGES, NODE)
    inventory = inventory_of(found, RANGES)
    failure = Failure("2026-01-05T09:31:00Z", "Service default/web", "no such device")
    event = Event("Unhealthy", "Readiness probe failed: 500", 3, 1.0, 2.5)
    container = ContainerReadiness("main", streak=-3, events=(event,))
    return Snapshot(
        replace(inventory, readiness={name("a"): PodReadiness(False, (container,))}),
        outcome.frontends,
        outcome.problems,
        NODE,
        last_errors=(failure,),
        cluster_domain="cluster.local",
        events={name(own): (event,) for own in ("gone", "s-3")},
    )


def as_coroutine(take: Callable[[], Snapshot]) -> Callable[[], Awaitable[Snapshot]]:
    async def answer() -> Snapshot:
        return take()

    return answer


def serving(
    folder: Path, take: Callable[[], Snapshot], client: Callable[[], object], timeout: float = 30.0
) -> object:
    """Run `client` in a thread while a server sends snapshots. Returns its result."""

    async def run() -> object:
        async with serve(folder, as_coroutine(take), timeout=timeout):
            return await asyncio.to_thread(client)

    return asyncio.run(run())


def test_a_snapshot_can_be_encoded_and_decoded() -> None:
    taken = snapshot()
    services = taken.inventory.services
    taken = replace(taken, inventory=replace(taken.inventory, held={name("web"): "x"}, left_out=services))
    assert taken.frontends
    assert taken.problems
    assert taken.inventory.nodes
    assert taken.inventory.ingresses
    assert taken.inventory.unselected
    assert decode(encode(taken)) == taken


def test_a_client_gets_the_snapshot(tmp_path: Path) -> None:
    taken = snapshot(services=2000)  # more than fits into a socket's buffer
    assert len(encode(taken)) > 1_000_000
    assert serving(tmp_path, lambda: taken, lambda: fetch(tmp_path)) == taken


def test_each_client_gets_the_present_snapshot(tmp_path: Path) -> None:
    snapshots = iter([Snapshot(Inventory({}, {}), [], [], Node(own)) for own in ("first", "second")])

    def names() -> list[str]:
        return [fetch(tmp_path).node.name for _ in range(2)]

    assert serving(tmp_path, lambda: next(snapshots), names) == ["first", "second"]


def test_the_socket_has_mode_0600_and_is_removed_at_the_end(tmp_path: Path) -> None:
    mode = serving(tmp_path, snapshot, lambda: (tmp_path / SOCKET).stat().st_mode)
    assert isinstance(mode, int)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert not (tmp_path / SOCKET).exists()


def test_a_path_that_exceeds_the_limit_for_sockets(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["deep" * 10] * 5)
    folder.mkdir(parents=True)
    assert len(os.fsencode(folder)) > 107
    assert serving(folder, snapshot, lambda: fetch(folder)) == snapshot()
    assert list(folder.iterdir()) == []


def test_a_leftover_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET))
    assert (tmp_path / SOCKET).exists()
    with pytest.raises(KproxyError, match="cannot connect to a running kproxy"):
        fetch(tmp_path)
    assert serving(tmp_path, snapshot, lambda: fetch(tmp_path)) == snapshot()


@in_event_loop
async def test_two_servers_do_not_share_a_directory(tmp_path: Path) -> None:
    async with serve(tmp_path, as_coroutine(snapshot)):
        with pytest.raises(StateError, match="in use by another `kproxy run`"):
            async with serve(tmp_path, as_coroutine(snapshot)):
                pass
        assert await asyncio.to_thread(fetch, tmp_path) == snapshot()


def test_a_client_that_does_not_read_is_disconnected(tmp_path: Path) -> None:
    large = snapshot(services=2000)
    later = snapshot()
    snapshots = iter([large, later])

    def hang() -> tuple[Snapshot, int]:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / SOCKET))
            client.sendall(ALL)
            client.recv(1)
            meanwhile = fetch(tmp_path)
            hung_up = select.poll()
            hung_up.register(client, select.POLLRDHUP)
            assert hung_up.poll(60_000)
            client.settimeout(20)
            return meanwhile, sum(len(part) for part in iter(lambda: client.recv(65536), b""))

    meanwhile, got = cast(tuple[Snapshot, int], serving(tmp_path, lambda: next(snapshots), hang, timeout=0.5))
    assert meanwhile == later
    assert got < len(encode(large)) - 1


def test_the_server_ends_without_waiting_for_clients(tmp_path: Path) -> None:
    large = snapshot(services=2000)
    with socket.socket(socket.AF_UNIX) as client:

        def hang() -> None:
            client.connect(str(tmp_path / SOCKET))
            client.sendall(ALL)
            client.recv(1)

        start = time.monotonic()
        serving(tmp_path, lambda: large, hang)
        assert time.monotonic() - start < 25  # TIMEOUT is 30 s


class Changing:
    """A state that a test changes while it is served, and while another thread watches it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.revision = Revision()
        self.asked = 0

    async def snapshot(self) -> Snapshot:
        self.asked += 1
        return replace(snapshot(), node=Node(str(self.revision.number)))

    def serving(self, timeout: float = 30.0) -> AbstractAsyncContextManager[Channel]:
        return serve(self.folder, self.snapshot, self.revision, timeout)

    async def next(self, watcher: Iterator[Snapshot]) -> str:
        return (await asyncio.to_thread(next, watcher)).node.name

    async def waits(self) -> None:
        """Wait until a watcher waits for a change."""
        async with asyncio.timeout(20):
            while not self.revision.waiting:
                await asyncio.sleep(0)


@in_event_loop
async def test_a_removed_socket_is_created_again_and_watchers_stay(tmp_path: Path) -> None:
    state = Changing(tmp_path / "state")
    state.folder.mkdir()
    async with state.serving() as channel:
        inode = (state.folder / SOCKET).stat().st_ino
        await channel.renew()
        assert (state.folder / SOCKET).stat().st_ino == inode
        watcher = watch(state.folder, pause=0.0)
        assert await state.next(watcher) == "0"
        shutil.rmtree(state.folder)
        with pytest.raises(StateError):
            await channel.renew()
        state.folder.mkdir()
        await channel.renew()
        assert await asyncio.to_thread(lambda: fetch(state.folder).node.name) == "0"
        state.revision.set(1)
        assert await state.next(watcher) == "1"
        # Another process has the place: its socket stays.
        (state.folder / SOCKET).unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(state.folder / SOCKET))
            other.listen()
            with pytest.raises(StateError, match="in use by another"):
                await channel.renew()
    assert (state.folder / SOCKET).exists()


@in_event_loop
async def test_a_watcher_gets_a_snapshot_after_each_change(tmp_path: Path) -> None:
    state = Changing(tmp_path)
    async with state.serving():
        watcher = watch(tmp_path, pause=0.0)
        assert await state.next(watcher) == "0"
        pending = asyncio.create_task(state.next(watcher))
        await state.waits()
        state.revision.set(0)  # an equal revision is no change
        assert await asyncio.to_thread(lambda: fetch(tmp_path).node.name) == "0"
        assert not pending.done()
        state.revision.set(1)
        assert await pending == "1"
        state.revision.set(2)  # the watcher gets one snapshot for both changes
        state.revision.set(3)
        assert await state.next(watcher) == "3"
        assert state.asked == 4


@in_event_loop
async def test_the_task_of_a_watcher_ends_when_it_disconnects(tmp_path: Path) -> None:
    state = Changing(tmp_path)
    async with state.serving():
        before = len(asyncio.all_tasks())
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / SOCKET))
            client.sendall(ALL + NEXT)
            await state.waits()
        async with asyncio.timeout(20):
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0)
        assert not state.revision.waiting


def answers(folder: Path, asked: bytes) -> bytes:
    """Return all that the server sends to a client that asks this, until it closes the connection."""
    received = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(folder / SOCKET))
        client.sendall(asked)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(20)
        with suppress(ConnectionResetError):  # the server closed the connection before it read everything
            while piece := client.recv(65536):
                received += piece
    return received


@pytest.mark.parametrize("asked", [b"", b"more\n", b"n" * 100_000, b"all", b"next\n", b"about"])
@in_event_loop
async def test_a_client_that_does_not_request_a_snapshot_gets_nothing(asked: bytes, tmp_path: Path) -> None:
    state = Changing(tmp_path)
    async with state.serving():
        assert await asyncio.to_thread(answers, tmp_path, asked) == b""
        assert state.asked == 0


def test_a_client_gets_the_part_about_names_and_addresses(tmp_path: Path) -> None:
    taken = snapshot(services=20)
    found = serving(tmp_path, lambda: taken, lambda: fetch(tmp_path, about=["s-3", "s-30", "a"]))
    assert isinstance(found, Snapshot)
    assert [str(own) for own in found.inventory.services] == ["default/s-3"]
    assert [str(frontend.owner.service) for frontend in found.frontends] == ["default/s-3"]
    assert [pod.name.name for pod in found.inventory.pods] == ["a"]
    assert [str(own) for own in found.events] == ["default/s-3"]
    (address,) = taken.inventory.services[name("s-4")].cluster_ips
    found = serving(tmp_path, lambda: taken, lambda: fetch(tmp_path, about=[format_address(address)]))
    assert isinstance(found, Snapshot)
    assert [str(own) for own in found.inventory.services] == ["default/s-4"]
    assert found.problems == taken.problems


@pytest.mark.parametrize("asked", [b"more\n", b"n" * 100_000, b"next", b"next\nnext\n"])
@in_event_loop
async def test_a_client_that_sends_anything_else_is_disconnected(asked: bytes, tmp_path: Path) -> None:
    state = Changing(tmp_path)
    async with state.serving():
        await asyncio.to_thread(answers, tmp_path, ALL + asked)
        assert state.asked == 1


@in_event_loop
async def test_a_watcher_gets_an_error_when_kproxy_ends(tmp_path: Path) -> None:
    state = Changing(tmp_path)
    async with state.serving():
        waiting, working = watch(tmp_path, pause=0.0), watch(tmp_path, pause=0.0)
        for watcher in (waiting, working):
            assert await state.next(watcher) == "0"
        pending = asyncio.create_task(state.next(waiting))
        await state.waits()
    for ended in (pending, state.next(working)):
        with pytest.raises(KproxyError, match=r"^kproxy run has ended\.$"):
            await ended


@in_event_loop
async def test_a_watcher_pauses_longer_for_a_larger_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, pauses = Changing(tmp_path), list[float]()
    now = iter([10.0, 10.1, 20.0, 22.0, 30.0])
    monkeypatch.setattr(
        "kproxy.control.client.time", SimpleNamespace(monotonic=lambda: next(now), sleep=pauses.append)
    )
    async with state.serving():
        watcher = watch(tmp_path)
        for number in range(3):
            assert await state.next(watcher) == str(number)
            state.revision.set(number + 1)
    assert pauses == [1.0, 10.0]


def test_without_a_server(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(KproxyError, match=f"cannot connect to a running kproxy at {folder}/{SOCKET}"):
            fetch(folder)


def test_a_missing_state_directory(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="No such file"):
        serving(tmp_path / "absent", snapshot, lambda: None)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to change the user")
def test_another_user(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\nfrom kproxy.control.client import fetch\n"
        "os.chdir(sys.argv[1])\nos.setuid(65534)\nfetch(Path('.'))"
    )

    def ask() -> str:
        command = [sys.executable, "-c", script, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert "ForbiddenError: kproxy.sock: Permission denied" in str(serving(tmp_path, snapshot, ask))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda m: m.replace(kproxy.__version__.encode(), b"9.9", 1),
            "kproxy run is version 9.9, but this command is version",
        ),
        (lambda m: m[:-1], "sent .* of .* bytes"),
        (lambda m: b"", "without a response"),
        (lambda m: m[:9], "without a response"),
        (lambda m: m.replace(b"frontends", b"fromtends", 1), "another build of version"),
    ],
    ids=["version", "cut", "nothing", "cut greeting", "other fields"],
)
def test_messages_that_cannot_be_decoded(change: Callable[[bytes], bytes], complaint: str) -> None:
    with pytest.raises(KproxyError, match=complaint):
        decode(change(encode(snapshot())))


COMMANDS = ["get svc", "get pods -o wide", "get endpointslices -o yaml", "describe ing,svc", "env a"]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_manifests_a_command_shows_the_running_kproxy(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output is the same as with manifests, except for the last errors."""
    taken = snapshot()
    state = ["--state-dir", str(tmp_path)]

    assert serving(tmp_path, lambda: taken, lambda: main([*command.split(), *state])) == 1
    live, complaint = capsys.readouterr()
    assert "Service default/wrong: spec.ports[0].port: 0 is not a port" in complaint

    (tmp_path / "in.yaml").write_text(OBJECTS)
    node = ["--node-name", NODE.name, "--node-ip", "192.0.2.1,2001:db8::1"]
    flags = ["-f", str(tmp_path / "in.yaml"), "--service-cidr", "10.96.0.0/12,fd00:96::/112", *node]
    assert main([*command.split(), *state, *flags]) == 1
    named = capsys.readouterr().out
    if command.startswith("describe"):
        named += "Last Errors:\n  2026-01-05T09:31:00Z  no such device\n"
    assert live == named
    assert named.count("\n") > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_without_manifests_and_without_a_running_kproxy(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--state-dir", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("kproxy: cannot connect to a running kproxy at ")
