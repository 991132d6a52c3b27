"""`kproxy top` and `kproxy connections`: what they say about connections that a test opened itself."""

from __future__ import annotations

import codecs
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.probe import http_get, many

from tests import forkserver
from tests.support import PATIENCE, SERVICE_IP, Kproxy, eventually, service, slices

pytestmark = pytest.mark.lab

SILENT = "add table ip f; add chain ip f in { type filter hook input priority 0; policy drop; }"


@contextmanager
def connections(client: Handle, count: int) -> Iterator[None]:
    """Keep a number of connections to the Service open."""

    def connect() -> list[socket.socket]:
        return [socket.create_connection((SERVICE_IP[4], 80), timeout=30) for _ in range(count)]

    with ExitStack() as opened:
        for each in client.inside(connect):
            opened.enter_context(each)
        yield


def ask(kproxy: Kproxy, *command: str) -> dict[str, Any]:
    done = forkserver.run(kproxy.node, [*command, "-o", "json", "--interval", "200ms"])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_connections_of_a_service(lab: Lab, kproxy: Kproxy) -> None:
    client = lab.pod("pod-3")
    nothing = service("nothing", cluster_ips={4: "10.96.10.77", 6: "fd00:96::77"})
    kproxy.sync(service(), *slices(lab, ["pod-1", "pod-2"]), nothing)

    # 1. Closed connections are counted, and are not live.
    assert many(client, SERVICE_IP[4], 80, 8).total() == 8
    assert many(client, SERVICE_IP[6], 80, 2).total() == 2
    many(client, "10.96.10.77", 80, 5)
    many(client, SERVICE_IP[4], 81, 3)
    with connections(client, 6):
        # 2. Open ones are live.
        found = ask(kproxy, "top")
        (web,) = (each for each in found["services"] if each["name"] == "web")
        assert (web["new"], web["live"], web["unanswered"], web["refused"]) == (16, 6, 0, 3)
        assert web["refusedByReason"] == {"cluster-ip-port": 3}
        assert found["totals"]["refused"] == 8
        of_web = ask(kproxy, "connections", "web")
        endpoints = {f"{lab.pod(pod).address(4)}:8080" for pod in ("pod-1", "pod-2")}
        assert {each["endpoint"] for each in of_web["endpoints"]} >= endpoints
        assert sum(each["live"] for each in of_web["endpoints"]) == 6
        assert sum(each["new"] for each in of_web["endpoints"]) == 16

        # 3. They stay when the Service loses its endpoints.
        kproxy.sync(service(), nothing)
        assert ask(kproxy, "connections", "web")["live"] == 6
    kproxy.sync(service(), *slices(lab, ["pod-1", "pod-2"]), nothing)

    # 4. They are not live any more. An endpoint that does not answer is.
    eventually(lambda: ask(kproxy, "connections", "web")["live"] == 0)
    for pod in ("pod-1", "pod-2"):
        lab.pod(pod).run(["nft", SILENT], check=True)
    http_get(client, SERVICE_IP[4], 80, timeout=0.3)
    silent = ask(kproxy, "connections", "web")
    assert (silent["live"], silent["unanswered"]) == (1, 1)
    text = forkserver.run(kproxy.node, ["connections", "svc/web", "--interval", "0.2"]).stdout
    assert "ENDPOINT" in text
    assert "cluster-ip-port   3" in text


def test_what_connections_does_not_find(lab: Lab, kproxy: Kproxy) -> None:
    done = forkserver.run(kproxy.node, ["top", "--once"])
    assert (done.returncode, done.stderr) == (
        1,
        "kproxy: This host has no tables of kproxy. kproxy run and kproxy sync make them.\n",
    )
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    done = forkserver.run(kproxy.node, ["connections", "other/web"])
    assert "Service other/web has no frontends in the tables of this node" in done.stderr
    done = forkserver.run(kproxy.node, ["top", "--interval", "0"])
    assert (done.returncode, "less than 0.2 seconds" in done.stderr) == (2, True)


LOCAL_MODES = 3
"""The index of these flags in the attributes of a terminal."""


class Terminal:
    """`kproxy top` in a terminal of 80 columns."""

    def __init__(self, node: Handle) -> None:
        self.keyboard, own = pty.openpty()
        os.set_blocking(self.keyboard, False)
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "20"}
        # Programs in the background, for example these tests, may have been started with ignored signals.
        command = ["env", "--default-signal", sys.executable, "-m", "kproxy", "top", "--interval", "200ms"]
        self.process: subprocess.Popen[str] = node.popen(
            command, stdin=own, stdout=own, stderr=own, env=environment, cwd=forkserver.ROOT
        )
        os.close(own)
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def until(self, text: str) -> None:
        """Wait until the terminal shows a text."""
        end = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < end, self.text
            if select.select([self.keyboard], [], [], 1)[0]:
                self.text += self._decoder.decode(os.read(self.keyboard, 1 << 16))

    def press(self, keys: str) -> None:
        """Press keys. What was shown before is forgotten."""
        self.text = ""
        os.write(self.keyboard, keys.encode())


def test_the_screen(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    with connections(lab.pod("pod-3"), 2):
        terminal = Terminal(kproxy.node)
        terminal.until("default/web")
        terminal.until("live 2, 0 unanswered")
        terminal.press("\r")
        terminal.until(f"  {lab.pod('pod-1').address(4)}:8080")
        terminal.press("r")
        terminal.until("sorted by refused/s")
        terminal.press("/other\r")
        terminal.until("filter: other")
        terminal.press("q")
        assert terminal.process.wait(PATIENCE) == 0
    os.close(terminal.keyboard)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
def test_a_signal_leaves_the_terminal_as_it_was(lab: Lab, kproxy: Kproxy, number: signal.Signals) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    terminal = Terminal(kproxy.node)
    terminal.until("default/web")
    terminal.process.send_signal(number)
    terminal.until("\x1b[?1049l")
    assert terminal.process.wait(PATIENCE) == (0 if number is signal.SIGINT else 128 + number)
    assert termios.tcgetattr(terminal.keyboard)[LOCAL_MODES] & termios.ICANON
    os.close(terminal.keyboard)
