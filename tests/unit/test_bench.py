"""The benchmark's inputs are what they claim to be, and its table says what was measured."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from msgspec import Raw
from msgspec.structs import replace
from netns_lab.netns import in_fresh_namespace
from rich.console import Console

from bench import counters, endpoints, peer
from bench.manifests import as_json, as_yaml, manifests
from bench.process import output
from bench.report import growth, report
from bench.samples import CLUSTER_CIDR, SERVICE_CIDR, one_changed, samples, spare
from bench.suite import Figures, Held, Kproxy, Peer, Spread
from kproxy.decode import Document, decode

KPROXY = Kproxy(
    0.3,
    2.5,
    21.0,
    1.5,
    1.75,
    Spread(0.0004, 0.001),
    Spread(0.011, 0.02),
    90_000_000,
    700_000_000,
    Held(40, 19),
)
FIGURES = Figures(10_000, KPROXY, Peer(25.0, 0.1, 4.0, 180_000_000, Held(10_008, 10_008)))


@pytest.mark.parametrize("count", [1, 10, 10_000])
def test_every_address_is_another_and_in_its_range(count: int) -> None:
    services = list(samples(count))
    cluster_ips = {service.address for service in services}
    pods = {endpoint.address for service in services for endpoint in service.endpoints}
    assert (len(cluster_ips), len(pods)) == (count, 3 * count)
    assert all(ip_address(address) in ip_network(SERVICE_CIDR) for address in cluster_ips)
    assert all(ip_address(address) in ip_network(CLUSTER_CIDR) for address in (*pods, spare(0), spare(999)))
    assert not pods & {spare(index) for index in range(1000)}
    assert all(len({endpoint.node for endpoint in service.endpoints}) == 3 for service in services)


def test_kproxy_takes_the_manifests_without_complaint() -> None:
    decoded = decode([Document("bench", Raw(as_json(manifests(samples(50))).encode()))])
    assert (len(decoded.state.services), decoded.problems, decoded.ignored) == (50, [], {})
    assert [len(s.endpoints) for (s,) in decoded.state.slices.values()] == [3] * 50


def test_yaml_says_what_json_says() -> None:
    given = manifests(samples(5))
    assert yaml.safe_load(as_yaml(given)) == json.loads(as_json(given)) == given


def test_one_changed_service_differs_in_one_endpoint() -> None:
    (service,) = samples(1)
    before, after = set(service.endpoints), set(one_changed(service).endpoints)
    assert (len(before & after), len(after)) == (2, 3)


@pytest.mark.lab
def test_the_peers_ruleset_loads_and_changes(tmp_path: Path) -> None:
    services = list(samples(10))
    script, change = tmp_path / "load.nft", tmp_path / "change.nft"
    script.write_text(peer.load_script(services))
    change.write_text(peer.change_script(one_changed(services[3])))

    def loaded() -> str:
        output("nft", "-f", str(script))
        output("nft", "-f", str(change))
        return output("nft", "list", "ruleset")

    listing = in_fresh_namespace(loaded)
    assert listing.count("\tchain service-") == listing.count("numgen random mod 3 map { 0 : ") == 10
    assert listing.count(spare(0)) == 1


def test_the_table_marks_the_targets() -> None:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(report([replace(FIGURES, services=100), FIGURES], "This machine"))
    lines = [line.strip("│ ") for line in capture.get().splitlines()]
    assert any(line.startswith("load : first sync") and line.endswith("10x") for line in lines)
    assert [line.rpartition(": ")[2] for line in lines if "target" in line] == [
        *("reached", "reached", "NOT REACHED", "reached")
    ]


def test_rules_that_grow_are_noticed() -> None:
    more = replace(FIGURES, services=100, kproxy=replace(KPROXY, held=Held(41, 19)))
    assert growth([replace(FIGURES, services=100), FIGURES]) == ""
    assert growth([more, FIGURES]).endswith("41, 19 at 100; 40, 19 at 10,000")


@pytest.mark.parametrize(("form", "nodes"), [("on other nodes", 4), ("nodes unknown", 1)])
def test_many_endpoints_are_in_ten_files(tmp_path: Path, form: str, nodes: int) -> None:
    endpoints.write(tmp_path / "all", list(samples(20, 4)), endpoints.FORMS[form])
    files = [Document(file.name, Raw(file.read_bytes())) for file in (tmp_path / "all").iterdir()]
    decoded = decode(files)
    assert (len(files), len(decoded.state.services), decoded.problems) == (10, 20, [])
    assert {len({e.node for e in s.endpoints}) for (s,) in decoded.state.slices.values()} == {nodes}


@pytest.mark.lab
def test_a_short_run_of_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "FREED", 0)
    assert counters.elements(150).counts == (0, 150)
    counted, others = counters.measure(5_000, 1)
    assert (counted.computed, others.computed) == (5_000 * 16 * 128, 0)
    assert 0 < others.cost.cpu < 30
    console = Console(width=120)
    with console.capture() as capture:
        console.print(counters.report([counted, others], "5,000 endpoints", "This machine"))
    assert [line for line in capture.get().splitlines() if "with counters" in line and "10 MB" in line]


@pytest.mark.lab
def test_a_short_run_of_many_endpoints() -> None:
    found = list(endpoints.measure(10, 4, 1, (None,)))
    assert [each.form for each in found] == list(endpoints.FORMS)
    assert all(0 < each.kernel < each.cpu < 30 and each.peak > 10e6 for each in found)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(endpoints.report(found, "10 Services", "This machine"))
    assert capture.get().count("this folder") == 2
