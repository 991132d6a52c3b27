"""The table of causes in docs/troubleshooting.md is that of the doctor. `make golden` rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kproxy.doctor.core.causes import CAUSES

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
ROWS = re.compile(r"(?<=<!-- causes -->\n\n).*?(?=\n\n<!-- end -->)", re.DOTALL)


def rows() -> str:
    lines = [f"| {each.id} | {each.title} | {each.effect} | {each.action} |" for each in CAUSES]
    return "\n".join(["| id | cause | what clients notice | what to do |", "|---|---|---|---|", *lines])


def test_the_table_of_causes(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--rewrite-golden", default=False):
        PAGE.write_text(ROWS.sub(lambda _: rows(), PAGE.read_text()))
    assert ROWS.findall(PAGE.read_text()) == [rows()]
