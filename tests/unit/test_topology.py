"""Which of a service port's endpoints a node uses, a line per case.

An endpoint is `CONDITION@NODE/ZONES/NODES`: where it is, and the zones and nodes that it is hinted for.

    ready: r   draining (serves while it terminates): d   gone (terminates): g   starting (not yet ready): s
"""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import pytest

from kproxy.model import Endpoint, Node
from kproxy.resolve.topology import Candidate, categorize, serving

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

# endpoints, this node's zone -> for everyone, for policy Local
ROWS: dict[str, tuple[str, str, str, str]] = {
    "hints for this zone": (spread(), "a", "03", ""),
    "another zone's": (spread(), "b", "1", ""),
    "those of this node are not chosen by hints": (ALL_HERE_A, "a", "02", "01"),
    "the node's zone is not known": ("r@/a", "", "0", ""),
    "no hint for this zone": ("r@/a r@/c", "b", "01", ""),
    "one that is not ready is not used": (spread(d="s"), "a", "0", ""),
    "none of this zone is ready": (spread(a="s", d="s"), "a", "12", ""),
    "its hint does not count": ("s@/a r@/b r@/b", "a", "12", ""),
    "nor does a hint that it lacks": ("s@n1 r@/a r@/b", "a", "1", ""),
    "nor one that a draining one lacks": ("d@n2 r@/a r@/b", "a", "1", ""),
    "a ready one without a hint": ("r@/a r@/b r r@/a", "a", "0123", ""),
    "several hints": ("r@/a,b,c r@/b,c r@/b,d r@/c", "c", "013", ""),
    "none at all": ("", "a", "", ""),
    "all elsewhere": ("r@n2 r@n2", "", "01", ""),
    "all here": ("r@n1 r@n1", "", "01", "01"),
    "one here": ("r@n1 r@n2", "", "01", "0"),
    "nobody knows where": ("r r", "", "01", ""),
    "none ready": ("s@n1 s@n2", "", "", ""),
    "some ready": ("s@n1 r@n1", "", "1", "1"),
    "all draining": ("d@n1 d@n2", "", "01", "0"),
    "draining elsewhere": ("d@n2 d@n2", "", "01", ""),
    "draining, hints do not count": ("d@n1/a d@n2/b", "a", "01", "0"),
    "gone": ("g@n1 g@n2", "", "", ""),
    "draining here, ready elsewhere": ("r@n2 s@n1 d@n1 d@n2", "", "0", "2"),
    "draining and ready here": ("r@n1 d@n1 r@n2", "", "02", "0"),
    "for this node": (FOUR_NODES, "a", "0", ""),
    "for this node, which is not where it is": ("r@n2//n1 r@n1//n2", "", "0", "1"),
    "for another node of this zone": ("r@/a/n2 r@/b/n3 r@/a/n4", "a", "02", ""),
    "for other nodes, and no zone": ("r@//n2 r@//n3", "a", "01", ""),
    "for this node, which is not ready": ("s@/a/n1 r@/a/n2 r@/b/n3", "a", "1", ""),
    "one is not for a node": ("r@/a/n1 r@/b r@/c/n3 r@/a/n4", "a", "03", ""),
    "one has no hint of any kind": ("r@/a/n1 r r@/c/n3 r@/a/n4", "a", "0123", ""),
}  # fmt: skip


@pytest.mark.parametrize(("endpoints", "zone", "cluster", "local"), ROWS.values(), ids=ROWS)
def test_which_are_used(endpoints: str, zone: str, cluster: str, local: str) -> None:
    found = categorize(candidates(endpoints), Node("n1", zone=zone))
    assert (numbers(found.cluster), numbers(found.local)) == (cluster, local)
    assert found.any is bool(cluster or local)


def test_hints_for_an_empty_name_are_for_nobody() -> None:
    found = categorize([(Endpoint(b"\n\0\0\1", for_nodes=("",), for_zones=("",)), 80)] * 2, Node("n1"))
    assert len(found.cluster) == 2


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
def test_ready_ones_or_else_those_that_serve_while_terminating(endpoints: str, chosen: str) -> None:
    assert numbers(serving(candidates(endpoints))) == chosen


def test_ready_ones_count_even_while_they_terminate() -> None:
    """A service that publishes what is not ready."""
    both = [(Endpoint(b"\n\0\0\1", terminating=True), 80), *candidates("d")]
    assert list(serving(both)) == both[:1]
