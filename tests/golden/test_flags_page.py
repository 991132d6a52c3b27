"""The tables of flags in the docs are what the tables of `settings/` say. `make golden` rewrites it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kproxy.settings.flags import FLAGS, Flag
from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS

PAGE = Path(__file__).parents[2] / "docs" / "flags.md"
KUBE_PROXY_PAGE = PAGE.with_name("replacing-kube-proxy.md")
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


def test_the_table_of_kube_proxys_flags(pytestconfig: pytest.Config) -> None:
    table = re.compile(r"(?<=<!-- flags -->\n\n).*?(?=\n\n|\Z)", re.DOTALL)
    rows = [
        f"| `{f'{flag.name} {flag.metavar}'.rstrip()}` | {'' if flag.read else 'no effect: '}{flag.meaning} |"
        for flag in KUBE_PROXY_FLAGS
    ]
    expected = "\n".join(["| flag | effect |", "|---|---|", *rows])
    if pytestconfig.getoption("--rewrite-golden", default=False):
        KUBE_PROXY_PAGE.write_text(table.sub(lambda _: expected, KUBE_PROXY_PAGE.read_text()))
    assert table.findall(KUBE_PROXY_PAGE.read_text()) == [expected]
