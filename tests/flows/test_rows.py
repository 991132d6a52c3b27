"""Tests each row of each scenario twice: in the simulator, and with packets through a kernel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest
from netns_lab.topology import Family

from kproxy.table.layout import socket_address, socket_port
from kproxy.table.simulator import Fate, Simulator
from kproxy.table.simulator import PacketOutcome as Simulated
from tests.flows.objects import FAMILIES
from tests.flows.scenario import REFUSED, Expected, Row, Scenario, parse_row
from tests.flows.world import TRIES, Seen, World

FOLDER = Path(__file__).parent / "scenarios"
MODULES = [import_module(f"tests.flows.scenarios.{path.stem}") for path in sorted(FOLDER.glob("*.py"))]
SCENARIOS: dict[str, Scenario] = {s.name: s for module in MODULES for s in module.SCENARIOS}
ROWS = [
    pytest.param(name, row, family, id=f"{name}: {row.text}: IPv{family}")
    for name, scenario in SCENARIOS.items()
    for row in scenario.parsed()
    for family in row.families
]
LEAST = 150
UNEQUAL = 0.004
"""By which part of a share that of an endpoint may differ from it (docs/decisions.md)."""
DOCS = Path(__file__).parents[2] / "docs/kube-proxy-flows.md"


Enter = Callable[[str], World]


@pytest.fixture(scope="module")
def enter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enter]:
    """Return the lab of a scenario. It stays until a test needs another one."""
    worlds: dict[str, World] = {}

    def close() -> None:
        while worlds:
            worlds.popitem()[1].close()

    def of(name: str) -> World:
        if name not in worlds:
            close()
            worlds[name] = World(SCENARIOS[name], tmp_path_factory.mktemp("flows"))
            check_simulator_elements(worlds[name])
        return worlds[name]

    yield of
    close()


def check_simulator_elements(world: World) -> None:
    for node, family in product(world.scenario.nodes, FAMILIES):
        assert world.elements(node, family) == simulator(world.scenario.name, node, family).elements


def check_live_elements(world: World, row: Row, family: Family) -> None:
    """Check that single elements of the kernel lead to the same result as all of them."""
    for node, interface in world.scenario.path(row, family):
        packet = world.scenario.packet(row, family, interface, 20001)
        desired = simulator(world.scenario.name, node, family).first_packet(packet)
        assert world.outcome(node, family, packet) == desired


@cache
def simulator(name: str, node: str, family: Family) -> Simulator:
    return SCENARIOS[name].simulator(node, family)


def simulate(scenario: Scenario, row: Row, family: Family, source_port: int = 0) -> Simulated:
    """Return the result of the simulators on the packet's path."""
    outcome = Simulated(Fate.UNTOUCHED)
    for node, interface in scenario.path(row, family):
        outcome = simulator(scenario.name, node, family).first_packet(
            scenario.packet(row, family, interface, source_port)
        )
        if outcome.fate is not Fate.UNTOUCHED:
            break
    return outcome


def chosen(scenario: Scenario, family: Family, outcome: Simulated) -> list[tuple[Expected, Fraction]]:
    """Return the simulator's choices in the form of a row's endpoints."""
    names = {scenario.packed(pod.name, family): pod.name for pod in scenario.topology.pods}
    refused = [(Expected(REFUSED, None, 1, False), outcome.refused)] if outcome.refused else []
    return refused + [
        (
            Expected(
                names[socket_address(choice.endpoint)],
                socket_port(choice.endpoint),
                1,
                choice.masqueraded,
            ),
            choice.probability,
        )
        for choice in outcome.choices
    ]


def named_in(found: Expected, row: Row) -> Expected | None:
    """Return the endpoint of the row that equals this one, if there is one."""
    for expected in row.endpoints:
        same = (expected.pod, expected.masqueraded) == (found.pod, found.masqueraded)
        if same and expected.port in (None, found.port):
            return expected
    return None


@pytest.mark.parametrize(("name", "row", "family"), ROWS)
def test_in_the_simulator(name: str, row: Row, family: Family) -> None:
    scenario = SCENARIOS[name]
    for source_port in (20001, 20002, 33333, 40000) if row.hashed else (20001,):
        outcome = simulate(scenario, row, family, source_port)
        found = chosen(scenario, family, outcome)
        assert outcome.fate == row.fate
        shares = {named_in(one, row): float(share) for one, share in found}
        if row.hashed:
            assert list(shares.values()) == [1]
            assert None not in shares
        else:
            total = sum(expected.weight for expected in row.endpoints)
            wanted = {expected: expected.weight / total for expected in row.endpoints}
            assert shares == pytest.approx(wanted, rel=UNEQUAL), found


def observed(seen: Seen) -> Expected:
    """Return what became of a packet, in the form of a row's endpoints."""
    if seen.fate is Fate.REFUSED:
        return Expected(REFUSED, None, 1, False)
    assert seen.fate is Fate.TRANSLATED, seen
    return Expected(seen.pod, seen.port, 1, seen.masqueraded)


def other_port(found: Expected) -> Expected:
    """Return what this packet shows by chance, if masquerading selects a port that a connection has.

    Masquerading selects among 64,512 ports. It can select the port that the node itself used: then nothing
    seems to be masqueraded. And a later connection whose port is taken by then gets another one.
    """
    return found._replace(masqueraded=not found.masqueraded)


@pytest.mark.lab
@pytest.mark.parametrize(("name", "row", "family"), ROWS)
def test_in_the_kernel(enter: Enter, name: str, row: Row, family: Family) -> None:
    world = enter(name)
    check_live_elements(world, row, family)
    if row.fate != "translated":
        assert next(world.packets(row, family)).fate == row.fate
        return
    found: Counter[Expected | None] = Counter()
    chances = 1
    for count, seen in enumerate(world.packets(row, family), 1):
        one = observed(seen)
        if chances and named_in(one, row) is None and named_in(other_port(one), row):
            chances -= 1
            continue
        found[named_in(one, row)] += 1
        if row.hashed:
            simulated = chosen(
                world.scenario, family, simulate(world.scenario, row, family, seen.source_port)
            )
            assert [s._replace(weight=1) for s, _ in simulated] == [one]
        assert None not in found, one
        if count >= 4 * len(row.endpoints) and (row.hashed or len(found) == len(row.endpoints)):
            return
    assert set(found) == set(row.endpoints)


@pytest.mark.lab
def test_shares_in_the_kernel(enter: Enter) -> None:
    """The number of connections of each endpoint is within five standard deviations of its share."""
    name = "Gateway on the addresses of the node"
    row = parse_row("outside tcp n1:9003 -> pod-1*2 refused masq")
    assert row in list(SCENARIOS[name].parsed())
    world = enter(name)
    found = Counter(observed(seen).pod for seen in world.packets(row, 4))
    for share, pod in ((2 / 3, "pod-1"), (1 / 3, REFUSED)):
        deviation = (TRIES * share * (1 - share)) ** 0.5
        assert abs(found[pod] - TRIES * share) <= 5 * deviation, found


def test_the_docs_list_the_kube_proxy_tests_in_rows() -> None:
    named = {name for s in SCENARIOS.values() for name in re.findall(r"# .*?(Test\w+)", s.rows)}
    listed = set(re.findall(r"`(Test\w+)`", DOCS.read_text()))
    assert len(named) > 10
    assert named <= listed


def test_rows_are_found() -> None:
    assert len(ROWS) >= LEAST


@pytest.mark.parametrize(
    "line", ["pod-1 tcp web:80 pod-2", "pod-1 http web:80 -> pod-2", "pod-1 tcp web:80 -> pod 2!", ""]
)
def test_an_invalid_row_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match=r"not a row|not an endpoint"):
        parse_row(line)
