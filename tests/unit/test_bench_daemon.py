"""The daemon's benchmark sees what it says it sees, and a short run of it works."""

from __future__ import annotations

import threading
import time

import pytest
from msgspec.structs import replace
from netns_lab.netns import in_fresh_namespace
from rich.console import Console

from bench.daemon import kubeproxy, measures
from bench.daemon.kernel import Listener, Probe, frontend_bytes, listeners, socket_bytes
from bench.daemon.measures import Figures, Peer, Spread, Start
from bench.daemon.report import report
from bench.daemon.server import replaced, resized, serving
from bench.process import output
from bench.samples import samples

QUICK = Spread(0.001, 0.002, 0.03, each=0.0015, kernel=0.0003)
FIGURES = Figures(
    services=10_000,
    others=0.1,
    listeners=0,
    cold=Start(1.5, 1.2, 120_000_000),
    restart=Start(1.6, 1.3, 140_000_000),
    replaced=QUICK,
    resized=replace(QUICK, p99=0.016),
    churn=QUICK,
    churn_of_udp=QUICK,
    during_checks=QUICK,
    scrapes=QUICK,
    repair=0.3,
    peak=140_000_000,
)


def test_the_table_marks_the_targets() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(report([replace(FIGURES, services=1_000), FIGURES], "This machine"))
    marks = [line.rpartition(": ")[2] for line in capture.get().splitlines() if "target" in line]
    assert marks == ["NOT REACHED", "reached", "reached", "NOT REACHED", "reached", "reached"]


def test_the_figures_of_another_tree_get_a_column_with_ratios() -> None:
    console = Console(width=140)
    other = replace(FIGURES, cold=Start(3.0, 1.2, 240_000_000), repair=0.0, tree="../before")
    with console.capture() as capture:
        console.print(report([FIGURES, other], "This machine"))
    lines = [line.split("│") for line in capture.get().splitlines() if "│" in line]
    rows = {name.strip(): [cell.strip() for cell in cells[:3]] for _, name, *cells in lines}
    assert rows["start, until everything is in the kernel"] == ["1.5 s", "3 s", "0.50"]
    assert rows["endpoint replaced, p50 / p99"][2] == "1.00 / 1.00"
    assert rows["CPU of each, the kernel's part"] == ["1.5 ms / 0.3 ms", "1.5 ms / 0.3 ms", "1.00 / 1.00"]
    assert rows["nft flush ruleset, until repaired"][2] == "-"


def test_kube_proxy_gets_a_column_with_what_was_measured() -> None:
    console = Console(width=160)
    slow = Spread(3.0, 4.5, 0.9, each=0.15, kernel=0.1)
    peer = Peer(Start(30.0, 24.0, 300_000_000), Start(80.0, 60.0, 400_000_000), slow, slow, 560_000_000)
    with console.capture() as capture:
        console.print(report([replace(FIGURES, peer=peer)], "This machine"))
    lines = [line.split("│") for line in capture.get().splitlines() if "│" in line]
    rows = {name.strip(): [cell.strip() for cell in cells[:3]] for _, name, *cells in lines}
    assert rows["start, until everything is in the kernel"] == ["1.5 s", "30 s", "0.05"]
    assert rows["endpoint replaced, p50 / p99"] == ["1 ms / 2 ms", "3 s / 4.5 s", "0.00033 / 0.00044"]
    assert rows["endpoint added or removed"] == ["1 ms / 16 ms", "", ""]
    assert rows["peak memory: all measurements"] == ["140 MB", "560 MB", "0.25"]


def test_a_change_names_what_it_shows() -> None:
    (sample,) = samples(1)
    change = replaced(sample, 7)
    assert change.manifest["endpoints"][-1]["addresses"] == ["10.240.0.7"]
    endpoint, frontend = (
        bytes([10, 240, 0, 7, 0x1F, 0x90, 0, 0]),
        bytes([10, 96, 1, 0, 6, 0, 0, 0, 0, 80, 0, 0]),
    )
    assert change.shows == (endpoint,)
    more, less = resized(sample, 7)
    assert [len(c.manifest["endpoints"]) for c in (more, less)] == [4, 3]
    assert more.shows == less.shows == (endpoint, frontend)


TABLE = """
table ip kproxy {
  chain one { }
  map services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map endpoints-tcp { type ipv4_addr . inet_service . mark : ipv4_addr . inet_service; }
}
"""
ANONYMOUS = """
table ip kube-proxy {
  chain one {
    meta l4proto tcp dnat ip to numgen random mod 2 map { 0: 10.0.0.2 . 8080, 1: 10.0.0.1 . 8080 }
  }
}
"""
"""A Service in kube-proxy's form."""


@pytest.mark.lab
def test_those_who_look_on_see_elements_come_and_go() -> None:
    frontend, endpoint = frontend_bytes("10.96.0.1", "TCP", 80), socket_bytes("10.0.0.1", 8080)

    def look_on() -> None:
        probe = Probe(frontend)
        assert not probe.has()
        output("nft", TABLE)
        assert not probe.has()
        with Listener() as listener:
            assert listeners() >= 1
            timer = threading.Timer(
                0.2, output, ("nft", "add element ip kproxy services { 10.96.0.1 . tcp . 80 : goto one }")
            )
            begun = time.monotonic()
            timer.start()
            seen = probe.when(True)
            assert seen - begun >= 0.2
            assert abs(listener.when(frontend) - seen) < 10
            output("nft", "add element ip kproxy endpoints-tcp { 10.96.0.1 . 80 . 0 : 10.0.0.1 . 8080 }")
            assert listener.when(endpoint) > seen
        with Listener(kubeproxy.has_endpoints) as listener:
            output("nft", ANONYMOUS)
            assert listener.when(endpoint) > seen
        output("nft", "flush ruleset")
        assert probe.when(False) > seen
        probe.close()

    in_fresh_namespace(look_on)


@pytest.mark.lab
def test_a_short_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROUNDS": 1, "CHANGES": 4, "CHECKS": 2, "UDP_SERVICES": 5, "REPAIR_PAUSE": 0}.items():
        monkeypatch.setattr(measures, name, value)
    found = in_fresh_namespace(lambda: measures.measure(serving, 20, 0.2, lambda _: None))
    for changed in (found.replaced, found.resized, found.churn, found.churn_of_udp, found.during_checks):
        assert 0 < changed.median <= changed.p99 < 10
    assert found.cold.cpu > 0.1
    assert 0.1 < found.cold.seconds < 60
    assert 0 < found.repair < 30
    assert 20e6 < found.cold.peak <= found.peak < 150e6
