"""TCP clients that send their SYN while a table is missing are served as soon as it is back."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import Family

from tests.connections import ESTABLISHED, SYN_SENT, Entry, entries, make
from tests.support import EDITABLE, FAMILIES, SERVICE_IP, Kproxy, Running, eventually, service, slices

pytestmark = pytest.mark.lab

TCP = socket.IPPROTO_TCP
CLIENT: dict[Family, str] = {4: "198.51.100.9", 6: "2001:db8::9"}
ELSEWHERE: dict[Family, str] = {4: "198.51.100.7", 6: "2001:db8::7"}


@pytest.mark.parametrize("gap", ["delete table {}", "flush chain {} prerouting", "delete element {}"])
@pytest.mark.parametrize("family", FAMILIES)
def test_untranslated_handshakes_end_and_no_others(
    lab: Lab, kproxy: Kproxy, family: Family, gap: str
) -> None:
    node, vip, pod = lab.node("n1"), SERVICE_IP[family], lab.pod("pod-1").address(family)
    manifests = (service("web"), *slices(lab, ["pod-1"]))
    kproxy.sync(*manifests)
    # 1. There are entries of a frontend and of other destinations, in two states.
    frontend, other_port, other = (vip, 80), (vip, 81), (ELSEWHERE[family], 80)
    ports = iter(range(40000, 50000))

    def entry(to: tuple[str, int], answers: tuple[str, int]) -> Entry:
        return Entry((CLIENT[family], next(ports)), to, answers, TCP)

    lost = {entry(frontend, frontend) for _ in range(3)}
    stay = {entry(frontend, (pod, 8080)), entry(other_port, other_port), entry(other, other)}
    connected = {entry(frontend, frontend), entry(other, other)}
    make(node, lost | stay, SYN_SENT)
    make(node, connected, ESTABLISHED)
    # 2. Without a change of the tables, none of them ends.
    kproxy.sync(*manifests)
    assert entries(node) >= lost | stay | connected
    # 3. A program opens the gap, and kproxy closes it.
    table = f"{'ip' if family == 4 else 'ip6'} kproxy"
    element = f"{table} services {{ {vip} . tcp . 80 }}"
    kproxy.nft(gap.format(element if "element" in gap else table))
    assert "3 unanswered TCP connections ended" in kproxy.sync(*manifests)
    assert entries(node) & (lost | stay | connected) == stay | connected


def test_a_client_is_served_at_its_next_syn(lab: Lab, tmp_path: Path) -> None:
    node, pod = lab.node("n1"), lab.pod("pod-3")
    with Running(node, tmp_path, EDITABLE) as running:
        running.write("web", service("web"), *slices(lab, ["pod-1"]))
        eventually(lambda: "default/web" in running.logged())
        # 1. The table is deleted while kproxy is stopped, and a client begins to connect.
        os.kill(running.process.pid, signal.SIGSTOP)
        tracking = "chain c { type filter hook forward priority 0; ct state new; }"
        running.kproxy.nft(f"delete table ip kproxy; table ip other {{ {tracking}; }}")
        connection = pod.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.settimeout(60)
        connected = threading.Event()

        def connect() -> None:
            connection.connect((SERVICE_IP[4], 80))
            connected.set()

        threading.Thread(target=connect, daemon=True).start()
        vip = (SERVICE_IP[4], 80)
        eventually(lambda: any((entry.to, entry.answers) == (vip, vip) for entry in entries(node)))
        # 2. kproxy restores the table. The kernel of the client sends its SYN again, which is translated.
        os.kill(running.process.pid, signal.SIGCONT)
        eventually(connected.is_set, running.logged)
        eventually(lambda: "unanswered TCP connection ended" in running.logged(), running.logged)
        connection.close()
