"""Which endpoints of a service port a node uses, one row per case.

An endpoint is `CONDITION@NODE/ZONES/NODES`: its condition, its node, and the zones and nodes in its hints.

    r: ready   d: draining (serves while it terminates)   g: gone (terminates)   s: starting (not yet ready)
"""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import pytest

from kproxy.model import Endpoint, Node
from kproxy.resolve.frontends import Candidate, for_cluster, on_node, usable

CONDITIONS = {"r": (True, True, False), "d": (False, True, True), "g": (False, False, True), "s": (False, True, False)}  # fmt: skip


def candidates(text: str) -> list[Candidate]:
    """`r@n1/a,b r`: two endpoints."""
    found: list[Candidate] = []
    for number, word in enumerate(text.split()):
        condition, _, where = word.partition("@")
        node, zones, nodes = (*where.split("/"), "", "")[:3]
        for_zones, for_nodes = (tuple(filter(None, names.split(","))) for names in (zones, nodes))
        address = bytes([10, 1, 2, number])
        endpoint = Endpoint(address, *CONDITIONS[condition], node, for_nodes=for_nodes, for_zones=for_zones)
        found.append((endpoint, 80))
    return found


def numbers(chosen: object) -> str:
    return "".join(str(endpoint.address[3]) for endpoint, _ in chosen)  # type: ignore[attr-defined]


def spread(a: str = "r", b: str = "r", c: str = "r", d: str = "r") -> str:
    """Four endpoints, for zones a, b, c, a."""
    return f"{a}@/a {b}@/b {c}@/c {d}@/a"


FOUR_NODES = "r@/a/n1 r@/b/n2 r@/c/n3 r@/a/n4"
ALL_HERE_A = "r@n1/a r@n1/b r@n2/a r@n2/b"

# endpoints, this node's zone -> with policy Cluster, with policy Local
ROWS: dict[str, tuple[str, str, str, str]] = {
    "hints for this zone": (spread(), "a", "03", ""),
    "another zone": (spread(), "b", "1", ""),
    "policy Local ignores hints": (ALL_HERE_A, "a", "02", "01"),
    "the node's zone is unknown": ("r@/a", "", "0", ""),
    "no hint for this zone": ("r@/a r@/c", "b", "01", ""),
    "an endpoint that is not ready": (spread(d="s"), "a", "0", ""),
    "none of this zone is ready": (spread(a="s", d="s"), "a", "12", ""),
    "a hint of an endpoint that is not ready": ("s@/a r@/b r@/b", "a", "12", ""),
    "a missing hint of an endpoint that is not ready": ("s@n1 r@/a r@/b", "a", "1", ""),
    "a missing hint of a draining endpoint": ("d@n2 r@/a r@/b", "a", "1", ""),
    "a ready endpoint without a hint": ("r@/a r@/b r r@/a", "a", "0123", ""),
    "several hints": ("r@/a,b,c r@/b,c r@/b,d r@/c", "c", "013", ""),
    "no endpoints": ("", "a", "", ""),
    "all on other nodes": ("r@n2 r@n2", "", "01", ""),
    "all on this node": ("r@n1 r@n1", "", "01", "01"),
    "one on this node": ("r@n1 r@n2", "", "01", "0"),
    "nodes unknown": ("r r", "", "01", ""),
    "none ready": ("s@n1 s@n2", "", "", ""),
    "some ready": ("s@n1 r@n1", "", "1", "1"),
    "all draining": ("d@n1 d@n2", "", "01", "0"),
    "draining on another node": ("d@n2 d@n2", "", "01", ""),
    "draining, hints do not count": ("d@n1/a d@n2/b", "a", "01", "0"),
    "gone": ("g@n1 g@n2", "", "", ""),
    "draining on this node, ready on another": ("r@n2 s@n1 d@n1 d@n2", "", "0", "2"),
    "draining and ready on this node": ("r@n1 d@n1 r@n2", "", "02", "0"),
    "for this node": (FOUR_NODES, "a", "0", ""),
    "for a node other than the endpoint's own": ("r@n2//n1 r@n1//n2", "", "0", "1"),
    "for another node of this zone": ("r@/a/n2 r@/b/n3 r@/a/n4", "a", "02", ""),
    "for other nodes, and no zone": ("r@//n2 r@//n3", "a", "01", ""),
    "for this node, but not ready": ("s@/a/n1 r@/a/n2 r@/b/n3", "a", "1", ""),
    "one without a hint for a node": ("r@/a/n1 r@/b r@/c/n3 r@/a/n4", "a", "03", ""),
    "one without any hint": ("r@/a/n1 r r@/c/n3 r@/a/n4", "a", "0123", ""),
}  # fmt: skip


@pytest.mark.parametrize(("endpoints", "zone", "cluster", "local"), ROWS.values(), ids=ROWS)
def test_selected_endpoints(endpoints: str, zone: str, cluster: str, local: str) -> None:
    every, node = candidates(endpoints), Node("n1", zone=zone)
    assert (numbers(for_cluster(every, node)), numbers(on_node(every, node))) == (cluster, local)


def test_hints_with_an_empty_name_are_ignored() -> None:
    found = for_cluster([(Endpoint(b"\n\0\0\1", for_nodes=("",), for_zones=("",)), 80)] * 2, Node("n1"))
    assert len(found) == 2


@pytest.mark.parametrize(
    ("endpoints", "chosen"),
    [
        ("", ""),
        ("r s d", "0"),
        ("s d g s", "1"),
        ("d d", "01"),
        ("s g s", ""),
    ],
)
def test_usable_endpoints_are_ready_or_else_serving_and_terminating(endpoints: str, chosen: str) -> None:
    assert numbers(usable(candidates(endpoints))) == chosen


def test_an_endpoint_that_is_ready_and_terminating_is_ready() -> None:
    """That occurs with publishNotReadyAddresses."""
    both = [(Endpoint(b"\n\0\0\1", terminating=True), 80), *candidates("d")]
    assert list(usable(both)) == both[:1]
