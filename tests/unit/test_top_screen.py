"""The screen of `kproxy top` at 80 and 120 columns, and what keys do."""

from __future__ import annotations

import os
import pty

import pytest

from kproxy.model import ServicePortName
from kproxy.table.simulator import Reason
from kproxy.traffic import terminal
from kproxy.traffic.core.screen import (
    BY_NAME,
    COLUMNS,
    Line,
    Span,
    Status,
    Style,
    View,
    frame,
    keys,
    number,
    ordered,
    press,
)
from kproxy.traffic.core.tally import EndpointReading, Live, LiveReading, Tally
from tests.unit.make import name

STATUS = Status("14:03:21", 2.0, 0.007)
SERVICES = {"shop/cart": (5, 0), "shop/web": (30, 4), "default/api": (0, 8), "default/old": (0, 0)}
"""New and refused connections between two readings, two seconds apart."""


def example(complete: bool = True) -> Tally:
    tally = Tally()
    ports = {own: ServicePortName(name(own), "") for own in SERVICES}
    for second, factor in ((0.0, 0), (2.0, 1)):
        new = {ports[own]: factor * n for own, (n, _) in SERVICES.items()}
        refused = {(ports[own], Reason.NO_ENDPOINTS): factor * n for own, (_, n) in SERVICES.items()}
        tally.take(second, new, refused)
    live = {(name("shop/web"), "10.0.0.1:8080"): Live(7, 0), (name("shop/cart"), "10.0.0.2:80"): Live(9, 2)}
    tally.take_live(LiveReading(live, complete))
    tally.take_endpoints(EndpointReading(2.0, name("shop/web"), {"10.0.0.1:8080": 30}))
    return tally


def plain(lines: list[Line]) -> str:
    return "\n".join("".join(span.text for span in line).rstrip() for line in lines)


def shown(view: View, width: int = 80, height: int = 11) -> str:
    return plain(frame(example(), view, STATUS, width, height))


NARROW = """\
kproxy top  14:03:21  4 Services                      0.7% of a CPU, every 2.0 s
new 17.5/s  live 16, 2 unanswered  refused 6.0/s
sorted by new/s
SERVICE                       NEW/S     NEW    LIVE UNANSWERED REFUSED/S REFUSED
shop/web                       15.0      30       7          0       2.0       4
  10.0.0.1:8080                   0      30       7          0         0       0
shop/cart                       2.5       5       9          2         0       0
default/api                       0       0       0          0       4.0       8
default/old                       0       0       0          0         0       0

q quit  / filter  enter endpoints  sort: s n t l u r f, by column"""


def test_a_narrow_screen() -> None:
    assert shown(View(expanded=name("shop/web"))) == NARROW


def test_a_wide_screen() -> None:
    lines = shown(View(), width=120).splitlines()
    assert lines[0].endswith("0.7% of a CPU, every 2.0 s")
    assert {len(line) for line in lines[:1] + lines[3:8]} == {120}
    assert lines[-1].endswith("u unanswered  r refused/s  f refused")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 8), (10, 3), (1, 1), (80, 6)])
@pytest.mark.parametrize("cursor", [0, 3, 99])
def test_any_size(width: int, height: int, cursor: int) -> None:
    view = View(cursor=cursor, expanded=name("shop/web"), filter="", typing=True)
    lines = frame(example(), view, STATUS, width, height)
    assert len(lines) == max(1, height)
    if width >= 80:
        assert all(len("".join(span.text for span in line)) <= width for line in lines)


def test_a_name_that_is_too_long_or_not_printable() -> None:
    tally = Tally()
    names = (name(f"shop/{'x' * 60}"), name("a/\x1b"))
    tally.take(0.0, {ServicePortName(own, ""): 1 for own in names}, {})
    text = plain(frame(tally, View(), STATUS, 80, 10))
    assert f"shop/{'x' * 21}\u2026 " in text
    assert "a/\\x1b " in text


def test_refused_and_unanswered_connections_stand_out() -> None:
    lines = frame(example(), View(cursor=3), STATUS, 80, 12)
    alarms = {span.text.strip() for line in lines for span in line if span.style is Style.ALARM}
    assert alarms == {"2", "2.0", "4", "4.0", "8"}
    assert [line[0].text.strip() for line in lines if line and line[0].style is Style.SELECTED] == [
        "default/old"
    ]


def test_what_is_not_known_is_said() -> None:
    tally = example(complete=False)
    assert "live at least 16, 2 unanswered" in plain(frame(tally, View(), STATUS, 80, 12))
    tally.take_live(None)
    text = plain(frame(tally, View(), STATUS, 80, 12))
    assert "live connections unknown" in text
    assert "shop/web                       15.0      30       -          - " in text


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(), ["shop/web", "shop/cart", "default/api", "default/old"]),
        (View(sort=BY_NAME), ["default/api", "default/old", "shop/cart", "shop/web"]),
        (View(sort="l"), ["shop/cart", "shop/web", "default/api", "default/old"]),
        (View(sort="u"), ["shop/cart", "default/api", "default/old", "shop/web"]),
        (View(sort="f"), ["default/api", "shop/web", "default/old", "shop/cart"]),
        (View(filter="op/"), ["shop/web", "shop/cart"]),
        (View(namespace="default", sort="r"), ["default/api", "default/old"]),
        (View(filter="nothing"), []),
    ],
)
def test_order_and_filter(view: View, expected: list[str]) -> None:
    assert [str(own) for own in ordered(example(), view, 10)] == expected
    assert [str(own) for own in ordered(example(), view, 1)] == expected[:1]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("q", View(ended=True)),
        ("/op,x,backspace,enter", View(filter="op")),
        ("/q,escape", View()),
        ("down,down,up", View(cursor=1)),
        ("page down", View(cursor=3)),
        ("end,home", View()),
        ("down,l", View(sort="l")),
        ("enter", View(expanded=name("shop/web"))),
        ("enter,enter", View()),
        ("/nothing,enter,enter", View(filter="nothing")),
        ("/op,enter,escape", View()),
        ("x,?", View()),
    ],
)
def test_keys(typed: str, expected: View) -> None:
    view = View()
    for word in typed.split(","):
        named = word in ("enter", "escape", "backspace", "up", "down", "page down", "home", "end")
        for key in [word] if named else word:
            view = press(view, key, example(), 10)
    assert view == expected


def test_every_column_has_a_key_of_its_own() -> None:
    assert len({BY_NAME, *"q/jk", *(column.key for column in COLUMNS)}) == len(COLUMNS) + 5


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"qn", ["q", "n"]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[6~", ["up", "down", "page up", "page down"]),
        (b"\r\x7f\x1b", ["enter", "backspace", "escape"]),
        (b"\x1b[1;5Cn", ["n"]),
        (b"\xc3\xa4\x00n", ["n"]),
        (b"", []),
    ],
)
def test_keys_of_a_terminal(data: bytes, expected: list[str]) -> None:
    assert keys(data) == expected


@pytest.mark.parametrize(
    ("value", "is_rate", "expected"),
    [
        (None, False, "-"),
        (0, True, "0"),
        (0.04, True, "0.0"),
        (12.34, True, "12.3"),
        (1234.5, True, "1,234"),
        (99_999, False, "99,999"),
        (100_000, False, "100k"),
        (123_456, False, "123.5k"),
        (999_999, False, "1000k"),
        (4_560_000, False, "4.56M"),
        (10**16, False, "1e+04T"),
    ],
)
def test_numbers(value: float | None, is_rate: bool, expected: str) -> None:
    assert number(value, is_rate) == expected
    assert len(expected) <= 7


def test_spans_are_cut() -> None:
    assert frame(example(), View(), STATUS, 20, 8)[1] == (Span("new 17.5/s  live 16,"),)


def test_a_terminal_that_was_closed_is_as_if_q_was_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    other, own = pty.openpty()
    with os.fdopen(own) as keyboard:
        monkeypatch.setattr("sys.stdin", keyboard)
        with terminal._keyboard() as pressed:
            os.close(other)
            assert pressed(30) == b"q"
