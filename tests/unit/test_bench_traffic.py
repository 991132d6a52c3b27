"""The packets of the traffic benchmark are sound, its table says what was measured, and a short run works."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from scapy.layers.inet import IP, TCP

from bench.process import Failed
from bench.traffic.measures import connections, first_packets, sinks, stream
from bench.traffic.packets import FIRST_PORT, syn, syns
from bench.traffic.report import Figures, report
from bench.traffic.setups import KPROXY, NOTHING, PEER, make_setup, routes


def test_a_syn_is_what_scapy_would_have_made() -> None:
    made = IP(syn("10.244.1.2", 1025, "10.96.1.7", 80))
    wanted = IP(src="10.244.1.2", dst="10.96.1.7", flags="DF") / TCP(
        sport=1025, dport=80, flags="S", seq=1, window=64240
    )
    assert bytes(made[TCP]) == bytes(IP(bytes(wanted))[TCP])
    assert (made.src, made.dst, made.proto, made.len) == ("10.244.1.2", "10.96.1.7", 6, 40)


def test_every_syn_has_a_port_of_its_own_and_places_take_turns() -> None:
    made = list(syns("10.244.1.2", [("10.96.1.0", 80), ("10.96.1.1", 80)], 5))
    assert [address for _, address in made] == ["10.96.1.0", "10.96.1.1"] * 2 + ["10.96.1.0"]
    assert [IP(packet)[TCP].sport for packet, _ in made] == [FIRST_PORT + index for index in range(5)]


def test_the_table_has_medians_and_ratios_within_rounds() -> None:
    first = Figures([1e-5, 2e-5, 3e-5], [1e-5] * 3, [100.0] * 3, [1e9] * 3)
    other = Figures([3e-5, 2e-5, 6e-5], [2e-5] * 3, [50.0] * 3, [5e8] * 3)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(report({"first": first, "other": other}, "This machine"))
    (line,) = (line for line in capture.get().splitlines() if "other" in line and "x" in line)
    cells = [cell.strip() for cell in line.split("│")][2:-1]
    assert cells == ["30.0, x 2.00", "20.0, x 2.00", "50, x 0.50", "4.0, x 0.50"]


@pytest.mark.lab
@pytest.mark.parametrize("rules", [NOTHING, KPROXY, PEER])
def test_all_is_measured_and_packets_really_arrive(rules: str, tmp_path: Path) -> None:
    with make_setup(rules, 0 if rules == NOTHING else 3, tmp_path) as made:
        (route,) = routes(made)
        assert 0 < first_packets(route, route.all) < 0.01
        with sinks([made]):
            assert connections(route) > 10
            assert stream(route) > 1e6
            # A late reset of one of the connections before counts as an answer, too.
            with pytest.raises(Failed, match=r"of 10000 first packets [0-9] were answered"):
                first_packets(route, route.one)
