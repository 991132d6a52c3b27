"""The table in docs/flags.md equals the flags in the code. `make golden` rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kproxy.settings.flags import FLAGS, Flag

PAGE = Path(__file__).parents[2] / "docs" / "flags.md"
TABLE = re.compile(r"^\| flag \| verbs \| meaning \|\n(?:\|.*\n)+", re.MULTILINE)


def row(flag: Flag) -> str:
    names = ", ".join(f"`{f'{name} {flag.metavar}'.rstrip()}`" for name in flag.spellings)
    meaning = flag.help
    if flag.default:
        meaning += f" Default: {flag.default}."
    if flag.see:
        meaning += (
            f" See [{'below' if flag.see.startswith('#') else flag.see.partition('#')[0]}]({flag.see})."
        )
    return f"| {names} | {', '.join(flag.verbs.split())} | {meaning} |\n"


def test_the_table(pytestconfig: pytest.Config) -> None:
    expected = "| flag | verbs | meaning |\n|---|---|---|\n" + "".join(map(row, FLAGS))
    if pytestconfig.getoption("--rewrite-golden", default=False):
        PAGE.write_text(TABLE.sub(lambda _: expected, PAGE.read_text()))
    assert TABLE.findall(PAGE.read_text()) == [expected]
