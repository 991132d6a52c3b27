"""`kproxy run --gateway`: HAProxy follows the objects without a failed request, whatever happens to it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

import pytest
from netns_lab.lab import Lab

from kproxy.gateway.core.files import control_socket
from kproxy.gateway.runtime import Runtime
from kproxy.gateway.starting import STATE_BYTES
from kproxy.limits import GATEWAY_START_SECONDS
from tests.ingresses import ingress, secret, with_tls
from tests.stories.web_client import Client, Load, exchange, request
from tests.support import PATIENCE, Manifest, Running, eventually, service, slices, with_conditions

pytestmark = pytest.mark.lab


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path, flags=["--gateway", "-v"]) as running:
        yield running


@pytest.fixture
def client(lab: Lab) -> Client:
    return Client(lab.client("outside"), lab.node("n1").address(4))


def web(lab: Lab, *pods: str, conditions: tuple[str, ...] = ()) -> list[Manifest]:
    """The Service web, whose endpoints are these pods, and its Ingress."""
    found = with_conditions(slices(lab, pods), conditions or ["ready"] * len(pods))
    return [service(), *found, ingress()]


def haproxy(running: Running) -> int:
    """The number of the process that was started last."""
    return int(re.findall(r"HAProxy runs: process (\d+)", running.logged())[-1])


def serves(client: Client, host: str) -> bool:
    return client.get(host)[0] == 200


def metric(running: Running, name: str) -> float:
    text = running.kproxy.node.run(
        ["curl", "-s", "http://127.0.0.1:10249/metrics"], capture_output=True
    ).stdout
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


def test_changes_reach_haproxy_without_a_reload_or_a_failed_request(
    lab: Lab, running: Running, client: Client
) -> None:
    # 1. An Ingress with one endpoint.
    running.write("web", *web(lab, "pod-1"))
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
    first = haproxy(running)
    with Load(client) as load:
        # 2. Another endpoint, then only the other one.
        running.write("web", *web(lab, "pod-1", "pod-2"))
        eventually(lambda: client.pods() == {"pod-1", "pod-2"}, running.logged)
        running.write("web", *web(lab, "pod-2"))
        eventually(lambda: client.pods() == {"pod-2"}, running.logged)
        # 3. An endpoint that is terminating gets no new request while another one is ready.
        running.write("web", *web(lab, "pod-2", "pod-3", conditions=("draining", "ready")))
        eventually(lambda: client.pods() == {"pod-3"}, running.logged)
        # 4. If it is the only one, it gets requests.
        running.write("web", *web(lab, "pod-2", conditions=("draining",)))
        eventually(lambda: client.pods() == {"pod-2"}, running.logged)
        # 5. A new host, a new path, and a new Service.
        running.write("more", ingress("more", "more.example.com", paths=["/a"]))
        eventually(lambda: client.get("more.example.com", "/a")[0] == 200, running.logged)
        assert client.get("more.example.com", "/b")[0] == 404
        other = [service("other", cluster_ips={4: "10.96.10.11", 6: "fd00:96::11"})]
        running.write("other", *other, *slices(lab, ["pod-1"], name="other"))
        running.write("more", ingress("more", "more.example.com", "other", ["/a", "/b"]))
        eventually(
            lambda: client.get("more.example.com", "/b") == (200, "You've hit pod-1\n"), running.logged
        )
    # 6. All that without a failed request, in the same process.
    assert load.failures == {}
    assert load.requests > 100
    assert haproxy(running) == first
    assert metric(running, "kproxy_gateway_reloads_total") == 0
    assert metric(running, "kproxy_gateway_up") == 1
    text = running.kproxy.node.run(
        ["curl", "-s", "http://127.0.0.1:10249/metrics"], capture_output=True
    ).stdout
    assert 'haproxy_backend_http_requests_total{proxy="default.other.80"}' in text


class Headers(BaseHTTPRequestHandler):
    """Replies with the headers of the request."""

    def do_GET(self) -> None:
        text = str(self.headers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def test_a_service_learns_the_address_of_a_client(lab: Lab, running: Running, client: Client) -> None:
    """A client of IPv4 has its own address, and not `::ffff:192.168.77.9`."""
    pod, address = lab.pod("pod-1"), lab.client("outside").address(4)
    server = pod.inside(lambda: ThreadingTCPServer((pod.address(4), 8099), Headers))
    with server:
        threading.Thread(target=server.serve_forever).start()
        try:
            running.write("web", service(), slices(lab, ["pod-1"], 8099)[0], ingress())
            eventually(lambda: serves(client, "web.example.com"), running.logged)
            heard = client.get()[1].splitlines()
        finally:
            server.shutdown()
    assert {f"x-forwarded-for: {address}", f"x-real-ip: {address}"} <= set(heard)


def test_a_reload_loses_no_request(lab: Lab, running: Running, client: Client) -> None:
    running.write("web", *web(lab, "pod-1", "pod-2"))
    eventually(lambda: client.pods() == {"pod-1", "pod-2"}, running.logged)
    first = haproxy(running)
    with client.connect() as idle, Load(client) as load:
        assert exchange(idle, request())[0] == 200
        for number in range(3):
            limit = {"nginx.ingress.kubernetes.io/proxy-body-size": f"{number + 1}m"}
            running.write("more", ingress("more", f"more{number}.example.com", annotations=limit))
            eventually(partial(serves, client, f"more{number}.example.com"), running.logged)
        # A connection that was idle meanwhile has one more request. Then the client has to open another one.
        status, _, stays = exchange(idle, request())
        assert (status, stays) == (200, False)
    assert load.failures == {}
    assert haproxy(running) != first


def test_certificates_change_without_a_reload(lab: Lab, running: Running, client: Client) -> None:
    # 1. The first host with a certificate opens the port, which is a reload.
    running.write(
        "web", *web(lab, "pod-1"), secret("a", "a.example.com"), with_tls("a.example.com", "a", "a")
    )
    eventually(lambda: client.serial("a.example.com") == 1, running.logged)
    first = haproxy(running)
    with Load(client) as load:
        # 2. A renewed certificate, and another host with its own one.
        running.write("tls", secret("b", "b.example.com", 7), with_tls("b.example.com", "b", "b"))
        eventually(lambda: client.serial("b.example.com") == 7, running.logged)
        running.write("tls", secret("b", "b.example.com", 8), with_tls("b.example.com", "b", "b"))
        eventually(lambda: client.serial("b.example.com") == 8, running.logged)
        # 3. The host leaves. Its certificate is not shown any more, nor is another one.
        running.write("tls")
        eventually(lambda: client.serial("b.example.com") == 0, running.logged)
        assert client.serial("a.example.com") == 1
    assert load.failures == {}
    assert haproxy(running) == first


def test_haproxy_that_ends_is_started_again(lab: Lab, running: Running, client: Client) -> None:
    running.write("web", *web(lab, "pod-1"))
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
    first = haproxy(running)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: haproxy(running) != first, running.logged)
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
    assert f"HAProxy ended: process {first}" in running.logged()
    assert metric(running, "kproxy_gateway_restarts_total") == 1


def test_what_was_changed_by_hand_is_repaired_on_sighup(lab: Lab, running: Running, client: Client) -> None:
    running.write("web", *web(lab, "pod-1"))
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
    folder = next((running.kproxy.state / "gateway").glob("[0-9]*"))
    Runtime(folder / control_socket(folder.name)).ask("clear map hosts.map")
    assert client.get()[0] == 404
    running.process.send_signal(signal.SIGHUP)
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
    eventually(lambda: metric(running, "kproxy_gateway_repairs_total") == 1, running.logged)


def test_haproxy_outlives_kproxy_until_a_run_without_it(lab: Lab, running: Running, client: Client) -> None:
    running.write("web", *web(lab, "pod-1"))
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
    first = haproxy(running)
    with Load(client) as load:
        # 1. kproxy is killed, and started again: it goes on with the same process.
        running.stop(signal.SIGKILL)
        running.write("web", *web(lab, "pod-2"))
        running.start()
        eventually(lambda: client.pods() == {"pod-2"}, running.logged)
        assert haproxy(running) == first
    assert load.failures == {}
    # 2. Without --gateway, HAProxy is not wanted.
    running.stop()
    running.flags = []
    running.start()
    eventually(lambda: client.get()[0] == 0, running.logged)


def test_cleanup_stops_haproxy(lab: Lab, running: Running, client: Client) -> None:
    running.write("web", *web(lab, "pod-1"))
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
    running.stop()
    assert client.get()[0] == 200
    done = running.kproxy.cleanup()
    assert f"HAProxy: process {haproxy(running)}" in done.stdout
    eventually(lambda: client.get()[0] == 0)
    assert not (running.kproxy.state / "gateway").exists()


def test_a_port_that_is_taken_is_named_and_served_when_it_is_free(
    lab: Lab, running: Running, client: Client
) -> None:
    with lab.node("n1").socket(socket.AF_INET6, socket.SOCK_STREAM) as other:
        other.bind(("::", 80))
        other.listen()
        running.write("web", *web(lab, "pod-1"))
        eventually(lambda: "annot bind" in running.logged(), running.logged)
        healthz = ["curl", "-s", "http://127.0.0.1:10256/healthz"]

        def warned() -> str:
            return str(lab.node("n1").run(healthz, capture_output=True).stdout)

        eventually(lambda: "gateway: HAProxy does not start" in warned(), warned)
    eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)


def test_a_gateway_whose_port_is_taken_leaves_the_other_listeners(
    lab: Lab, running: Running, client: Client
) -> None:
    listener = {"name": "http", "protocol": "HTTP", "port": 8080}
    edge: Manifest = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "edge"},
        "spec": {"gatewayClassName": "kproxy", "listeners": [listener]},
    }
    with lab.node("n1").socket(socket.AF_INET6, socket.SOCK_STREAM) as other:
        other.bind(("::", 8080))
        other.listen()
        running.write("edge", edge)
        running.write("web", *web(lab, "pod-1"))
        eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
        message = "Gateway default/edge: spec.listeners: HAProxy cannot serve"
        eventually(lambda: f"{message} {lab.node('n1').address(4)} port 8080" in running.logged())


def test_an_unreadable_file_removes_no_route(lab: Lab, running: Running, client: Client) -> None:
    running.write("web", service(), *slices(lab, ["pod-1"]))
    running.write("routes", ingress())
    eventually(lambda: client.get()[0] == 200, running.logged)
    (running.manifests / "routes.json").write_text("{")
    running.write("web", service(), *slices(lab, ["pod-2"]))
    # The Service keeps its endpoint, too, since the file may have had a slice of it.
    eventually(lambda: client.pods() == {"pod-1", "pod-2"}, running.logged)
    running.write("routes", ingress(host="other.example.com"))
    eventually(lambda: client.get()[0] == 404, running.logged)


def test_existing(lab: Lab, tmp_path: Path) -> None:
    """An HAProxy that another program starts. The name is short, as the path of a socket has to be."""
    node, master = lab.node("n1"), tmp_path / "m"
    with Running(node, tmp_path, flags=["--gateway", "-v", "--gateway-socket", str(master)]) as running:
        client = Client(lab.client("outside"), node.address(4))
        # 1. kproxy writes the files, and says how to start HAProxy with them.
        running.write("web", *web(lab, "pod-1"))
        eventually(lambda: "Start it: haproxy -W" in running.logged(), running.logged)
        current = running.kproxy.state / "gateway" / "current"
        command = ["haproxy", "-W", "-S", str(master), "-f", str(current)]
        started = node.popen(command)
        eventually(lambda: client.pods(1) == {"pod-1"}, running.logged)
        eventually(lambda: "HAProxy runs" in running.logged(), running.logged)
        # 2. Commands and reloads lose no request.
        with Load(client) as load:
            running.write("web", *web(lab, "pod-2"))
            eventually(lambda: client.pods() == {"pod-2"}, running.logged)
            limit = {"nginx.ingress.kubernetes.io/proxy-body-size": "1m"}
            running.write("more", ingress("more", "more.example.com", annotations=limit))
            eventually(partial(serves, client, "more.example.com"), running.logged)
        assert load.failures == {}
        # 3. The other program starts it again, and it gets the endpoints of now.
        started.kill()
        started.wait()
        eventually(lambda: client.get()[0] == 0)
        running.write("web", *web(lab, "pod-3"))
        again = [node.popen(command)]

        def new() -> bool:
            if again[-1].poll() is not None:  # it read a file that kproxy replaced at that moment
                again.append(node.popen(command))
            return client.pods() == {"pod-3"}

        eventually(new, running.logged)


def test_a_long_state_directory_is_refused_for_an_existing_haproxy(lab: Lab, tmp_path: Path) -> None:
    """HAProxy allows shorter paths of sockets than Linux."""
    (tmp_path / "f").mkdir()
    state = tmp_path / ("x" * STATE_BYTES)
    command = [sys.executable, "-m", "kproxy", "run", "-f", str(tmp_path / "f"), "--state-dir", str(state)]
    flags = ["--allow-empty", "--gateway", "--gateway-socket", str(tmp_path / "m")]
    done = lab.node("n1").run([*command, *flags], capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert f"{state}/gateway has more than {STATE_BYTES} bytes: with --gateway-socket" in done.stderr


def test_hanging(lab: Lab, tmp_path: Path) -> None:
    """Another program takes each command at the socket of the master, and does nothing. kproxy ends in time.

    The name is short, because it is part of the path of a socket.
    """
    master, asked = tmp_path / "m", threading.Event()

    def answer(listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                with listener.accept()[0] as connection:
                    if b"reload" in connection.recv(1024):
                        asked.set()
                    connection.sendall(b"\n")

    flags = ["--gateway", "--gateway-socket", str(master)]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(master))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with Running(lab.node("n1"), tmp_path, flags=flags) as running:
            running.write("web", *web(lab, "pod-1"))
            assert asked.wait(PATIENCE), running.logged()
            begun = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - begun < GATEWAY_START_SECONDS / 2
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
