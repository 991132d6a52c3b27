"""The table of limits in docs/security.md is what kproxy/limits.py says. `make golden` rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kproxy import limits
from kproxy.limits import KIB, MIB, TABLE, Limit

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ROWS = re.compile(r"(?<=<!-- limits -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)


def size(limit: Limit) -> str:
    if limit.unit == "bytes":
        return f"{limit.value / MIB:g} MiB" if limit.value >= MIB else f"{limit.value / KIB:.3g} KiB"
    return f"{limit.value:,.10g} {limit.unit}".strip().replace(" %", "%")


def rows() -> str:
    lines = ["| from | what | limit | at the limit |", "|---|---|---|---|"]
    before = ""
    for limit in TABLE:
        reader, what, *_, then = limit
        lines.append(f"| {reader if reader != before else ''} | {what} | {size(limit)} | {then} |")
        before = reader
    return "\n".join(lines)


def test_the_table(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--rewrite-golden", default=False):
        PAGE.write_text(ROWS.sub(lambda _: rows(), PAGE.read_text()))
    assert ROWS.findall(PAGE.read_text()) == [rows()]


def test_each_limit_is_in_the_table() -> None:
    """Equal values may hide a missing row, but not a new value."""
    values = {limit.value for limit in TABLE} | {limit.value / 100 for limit in TABLE}
    numbers = {name: value for name, value in vars(limits).items() if isinstance(value, int | float)}
    assert {name for name, value in numbers.items() if value not in values} <= {"KIB", "MIB"}
