"""What a table needs so that it is as expected, as rows: what was done to it, and what has to be written."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kproxy.nft.structure import ChainStructure, Structure, TableFlags
from kproxy.reconcile.core.repair import NEW_TABLE, Repair, compare, is_counting

NO_REPAIR = replace(NEW_TABLE, create=False)
EXPECTED = Structure(
    table=TableFlags.NONE,
    sets={"services": b"a map", "endpoints-tcp": b"a map", "cluster-ips": b"a set"},
    counters={"services": b"a counter", "endpoints-tcp": b"a counter"},
    chains={
        "services": ChainStructure(b"hook", (b"jump", b"accept")),
        "lb-3": ChainStructure(b"", (b"numgen",)),
    },
    constants={"local-addresses": frozenset({b"127.0.0.0/8"})},
)
CHANGED_RULES = ChainStructure(b"hook", (b"accept",))
CHANGED_HOOK = ChainStructure(b"another hook", (b"jump", b"accept"))


def without(name: str) -> Structure:
    """The expected table without the set or chain of this name."""
    return replace(
        EXPECTED,
        sets={key: value for key, value in EXPECTED.sets.items() if key != name},
        chains={key: value for key, value in EXPECTED.chains.items() if key != name},
    )


def with_chain(name: str, chain: ChainStructure) -> Structure:
    return replace(EXPECTED, chains={**EXPECTED.chains, name: chain})


ROWS: dict[str, tuple[Structure | None, Repair]] = {
    "nothing": (EXPECTED, NO_REPAIR),
    "there is no table": (None, NEW_TABLE),
    "a set is missing": (
        without("cluster-ips"),
        replace(NO_REPAIR, sets=("cluster-ips",), damage=("cluster-ips",)),
    ),
    "a set is declared otherwise": (
        replace(EXPECTED, sets={**EXPECTED.sets, "services": b"another map"}),
        replace(NO_REPAIR, replace=True),
    ),
    "a set has no counters": (
        replace(EXPECTED, counters={"endpoints-tcp": b"a counter"}),
        replace(NO_REPAIR, replace=True, convert=True),
    ),
    "endpoints are not counted": (
        replace(EXPECTED, counters={"services": b"a counter"}),
        replace(NO_REPAIR, convert=True),
    ),
    "a set too many": (
        replace(EXPECTED, sets={**EXPECTED.sets, "theirs": b"a set"}),
        replace(NO_REPAIR, extra_sets=("theirs",), damage=("theirs",)),
    ),
    "other constant elements": (
        replace(EXPECTED, constants={"local-addresses": frozenset()}),
        replace(NO_REPAIR, contents=("local-addresses",), damage=("local-addresses",)),
    ),
    "a rule is missing": (
        with_chain("services", CHANGED_RULES),
        replace(NO_REPAIR, chains=("services",), damage=("services",)),
    ),
    "another hook": (
        with_chain("services", CHANGED_HOOK),
        replace(NO_REPAIR, chains=("services",), damage=("services",), replace=True),
    ),
    "a numbered chain that is not needed any more is no damage": (
        with_chain("lb-4", ChainStructure(b"", (b"numgen",))),
        replace(NO_REPAIR, extra_chains=("lb-4",)),
    ),
    "a numbered chain that is new is no damage": (without("lb-3"), replace(NO_REPAIR, chains=("lb-3",))),
    "a numbered chain that is there with other rules is damage": (
        with_chain("lb-3", ChainStructure(b"", ())),
        replace(NO_REPAIR, chains=("lb-3",), damage=("lb-3",)),
    ),
    "another chain too many": (
        with_chain("theirs", ChainStructure(b"", ())),
        replace(NO_REPAIR, extra_chains=("theirs",), damage=("theirs",)),
    ),
    "a dormant table": (
        replace(EXPECTED, table=TableFlags.DORMANT),
        replace(NO_REPAIR, replace=True),
    ),
    "another owner": (
        replace(EXPECTED, table=TableFlags.PERSIST),
        replace(NO_REPAIR, convert=True),
    ),
}


@pytest.mark.parametrize(("actual", "repair"), ROWS.values(), ids=ROWS.keys())
def test_what_has_to_be_written(actual: Structure | None, repair: Repair) -> None:
    assert compare(actual, EXPECTED) == repair


@pytest.mark.parametrize(
    ("actual", "counting"),
    [
        (EXPECTED, True),
        (replace(EXPECTED, counters={"services": b"a counter"}), False),
        (without("endpoints-tcp"), True),
    ],
    ids=["counted", "not counted", "a map is missing"],
)
def test_whether_a_table_counts_endpoints(actual: Structure, counting: bool) -> None:
    assert is_counting(actual) == counting
