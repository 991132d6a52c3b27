"""The screen of `kproxy top`: what keys change, and the lines that it shows.

terminal.py reads the keys and writes the lines. Only the rows on the screen are made, and only Services with
a number other than 0 in the column are sorted: the others follow by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from heapq import nsmallest
from itertools import islice
from typing import NamedTuple, TypeAlias

from kproxy.model import NamespacedName
from kproxy.printable import printable
from kproxy.traffic.core.tally import Row, Tally

HEAD, FOOT = 4, 1
"""The numbers of lines above and below the rows."""
LEAST_NAME = 16
"""The minimum width of a name."""
WIDE = 100
"""The width of a screen from which there are two blanks between columns, not one."""


class Style(StrEnum):
    """How a part of a line looks."""

    PLAIN = "plain"
    TITLE = "title"
    HEADER = "header"
    SELECTED = "selected"
    ALARM = "alarm"
    FAINT = "faint"


class Span(NamedTuple):
    """A part of a line."""

    text: str
    style: Style = Style.PLAIN


Line: TypeAlias = tuple[Span, ...]


class Column(NamedTuple):
    """A column of numbers."""

    title: str
    key: str
    """The key that sorts by it."""
    value: Callable[[Row], float | None]
    """Its number in a row; None: unknown."""
    values: Callable[[Tally], Mapping[NamespacedName, float]]
    """Its numbers by Service. Those of other Services are 0."""
    is_rate: bool = False
    alarms: bool = False
    """Whether a number other than 0 is a bad sign."""


COLUMNS = (
    Column("NEW/S", "n", lambda row: row.new_rate, lambda all_: all_.new_rates, is_rate=True),
    Column("NEW", "t", lambda row: row.new, lambda all_: all_.new),
    Column("LIVE", "l", lambda row: row.live and row.live.connections, lambda all_: all_.connections),
    Column(
        "UNANSWERED",
        "u",
        lambda row: row.live and row.live.unanswered,
        lambda all_: all_.unanswered,
        alarms=True,
    ),
    Column(
        "REFUSED/S",
        "r",
        lambda row: row.refused_rate,
        lambda all_: all_.refused_rates,
        is_rate=True,
        alarms=True,
    ),
    Column("REFUSED", "f", lambda row: row.refused, lambda all_: all_.refused, alarms=True),
)
BY_KEY = {column.key: column for column in COLUMNS}
BY_NAME = "s"
"""The key that sorts by name."""
HELP = (
    "q quit  / filter  enter endpoints  sort: s name  "
    + "  ".join(f"{column.key} {column.title.lower()}" for column in COLUMNS),
    f"q quit  / filter  enter endpoints  sort: {' '.join((BY_NAME, *BY_KEY))}, by column",
    "q quit  / filter",
)
"""The last line, from long to short."""


class View(NamedTuple):
    """What the user sees of a tally."""

    sort: str = "n"
    """A key of `COLUMNS`, or BY_NAME."""
    namespace: str = ""
    """Only its Services are shown; "" for all."""
    filter: str = ""
    """Only Services whose names contain it are shown."""
    typing: bool = False
    """Whether keys change the filter."""
    cursor: int = 0
    """The number of the selected Service in the sorted list."""
    expanded: NamespacedName | None = None
    """The Service whose endpoints are shown."""
    ended: bool = False


class Status(NamedTuple):
    """What the first line says, besides totals."""

    clock: str
    every: float
    """The seconds between two readings."""
    share: float
    """The share of a CPU that this program takes."""


def ordered(tally: Tally, view: View, count: int) -> list[NamespacedName]:
    """Return the first `count` Services that the filter lets through, in the order of the view."""
    others = _filtered(tally, view)
    if view.sort == BY_NAME:
        return list(islice(others, count))
    values = BY_KEY[view.sort].values(tally)
    known = {name: n for name, n in values.items() if n and _is_shown(name, view)}
    first = nsmallest(count, known, key=lambda name: (-known[name], name))
    rest = (name for name in others if name not in known)
    return [*first, *islice(rest, count - len(first))]


def _filtered(tally: Tally, view: View) -> Iterator[NamespacedName]:
    """Return all Services that the filter lets through, by name."""
    return (name for name in tally.names if _is_shown(name, view))


def _is_shown(name: NamespacedName, view: View) -> bool:
    return view.namespace in ("", name.namespace) and (not view.filter or view.filter in str(name))


# --- keys ---

SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\b": "backspace",
    b"\x1b": "escape",
}
"""The keys without a character. The longest sequence that fits counts."""


def keys(data: bytes) -> list[str]:
    """Return the keys that a terminal sent. Unknown sequences are left out."""
    found: list[str] = []
    while data:
        sequence = next((s for s in sorted(SEQUENCES, key=len, reverse=True) if data.startswith(s)), b"")
        if sequence == b"\x1b" and data[1:2] in (b"[", b"O"):
            data = data[2:].lstrip(b"0123456789;")[1:]
        elif sequence:
            found.append(SEQUENCES[sequence])
            data = data[len(sequence) :]
        else:
            text = data[:1].decode("ascii", errors="ignore")
            found += [text] if text.isprintable() and text else []
            data = data[1:]
    return found


MOVES: Mapping[str, Callable[[int], int]] = {
    "up": lambda page: -1,
    "down": lambda page: 1,
    "page up": lambda page: -page,
    "page down": lambda page: page,
    "home": lambda page: -(1 << 30),
    "end": lambda page: 1 << 30,
    "k": lambda page: -1,
    "j": lambda page: 1,
}
"""How far a key moves the cursor, given the number of rows of the screen."""


def press(view: View, key: str, tally: Tally, page: int) -> View:
    """Return the view after a key. `page` is the number of rows of the screen."""
    if view.typing:
        return _type(view, key)
    if key in MOVES:
        last = sum(1 for _ in _filtered(tally, view)) - 1
        return view._replace(cursor=max(0, min(last, view.cursor + MOVES[key](page))))
    if key in BY_KEY or key == BY_NAME:
        return view._replace(sort=key, cursor=0)
    match key:
        case "q":
            return view._replace(ended=True)
        case "/":
            return view._replace(typing=True)
        case "escape":
            return view._replace(filter="", cursor=0, expanded=None)
        case "enter":
            names = ordered(tally, view, view.cursor + 1)
            selected = names[view.cursor] if view.cursor < len(names) else None
            return view._replace(expanded=None if selected == view.expanded else selected)
        case _:
            return view


def _type(view: View, key: str) -> View:
    match key:
        case "enter":
            return view._replace(typing=False)
        case "escape":
            return view._replace(typing=False, filter="", cursor=0)
        case "backspace":
            return view._replace(filter=view.filter[:-1], cursor=0)
        case _ if len(key) == 1:
            return view._replace(filter=view.filter + key.lower(), cursor=0)
        case _:
            return view


# --- lines ---


def number(value: float | None, is_rate: bool = False) -> str:
    """Return a number in at most seven characters: 12.5, 1,234, 12.3k, 4.56M; `-` for None."""
    if value is None:
        return "-"
    if is_rate and 0 < value < 100:
        return f"{value:.1f}"
    if value < 100_000:
        return f"{value:,.0f}"
    power = min(4, (len(f"{value:.0f}") - 1) // 3)
    return f"{value / 1000**power:.4g}{' kMGT'[power]}"


def page_of(height: int) -> int:
    """Return the number of rows of a screen."""
    return max(1, height - HEAD - FOOT)


def frame(tally: Tally, view: View, status: Status, width: int, height: int) -> list[Line]:
    """Return the lines of a screen of this size."""
    page = page_of(height)
    names = ordered(tally, view, view.cursor + page)
    cursor = min(view.cursor, max(0, len(names) - 1))
    rows: list[tuple[Row, Style]] = []
    below: list[tuple[Row, Style]] = []
    for index, name in enumerate(names):
        selected = index == cursor
        rows.append((tally.row(name), Style.SELECTED if selected else Style.PLAIN))
        if name == view.expanded:
            below = [(row._replace(name=f"  {row.name}"), Style.FAINT) for row in tally.endpoints(name)]
            rows += below
    at = next((i for i, (_, style) in enumerate(rows) if style is Style.SELECTED), 0)
    start = max(0, min(at, at - page + 1 + min(len(below), page - 1)))
    widths = _widths(width)
    lines = [*_head(tally, view, status, width), _titles(widths)]
    lines += [_row(row, style, widths) for row, style in rows[start : start + page]]
    lines += [()] * (height - FOOT - len(lines))
    return [*lines[: height - FOOT], _foot(view, width)]


def _widths(width: int) -> list[int]:
    """Return the widths of the name and of the columns of numbers, with the blanks before these."""
    gap = 1 if width < WIDE else 2
    numbers = [gap + max(7, len(column.title)) for column in COLUMNS]
    return [max(LEAST_NAME, width - sum(numbers)), *numbers]


def _head(tally: Tally, view: View, status: Status, width: int) -> list[Line]:
    total = tally.total()
    services = f"{len(tally.names):,} Services"
    cost = f"{status.share:.1%} of a CPU, every {status.every:.1f} s"
    left = f"kproxy top  {status.clock}  {services}"
    live = "live connections unknown"
    if total.live and tally.live:
        least = "" if tally.live.complete else "at least "
        live = f"live {least}{total.live.connections:,}, {total.live.unanswered:,} unanswered"
    numbers = f"new {number(total.new_rate, True)}/s  {live}  refused {number(total.refused_rate, True)}/s"
    sort = "name" if view.sort == BY_NAME else BY_KEY[view.sort].title.lower()
    shown = (
        f"  filter: {printable(view.filter)}{'_' if view.typing else ''}"
        if view.filter or view.typing
        else ""
    )
    blank = " " * max(1, width - len(left) - len(cost))
    return [
        _cut((Span(left, Style.TITLE), Span(blank), Span(cost, Style.FAINT)), width),
        _cut((Span(numbers),), width),
        _cut((Span(f"sorted by {sort}{shown}", Style.FAINT),), width),
    ]


def _titles(widths: Sequence[int]) -> Line:
    cells = ["SERVICE".ljust(widths[0])]
    cells += [column.title.rjust(width) for column, width in zip(COLUMNS, widths[1:], strict=True)]
    return (Span("".join(cells), Style.HEADER),)


def _row(row: Row, style: Style, widths: Sequence[int]) -> Line:
    name = printable(row.name)
    if len(name) > widths[0]:
        name = name[: widths[0] - 1] + "\N{HORIZONTAL ELLIPSIS}"
    spans = [Span(name.ljust(widths[0]), style)]
    for column, width in zip(COLUMNS, widths[1:], strict=True):
        value = column.value(row)
        alarm = column.alarms and value and style is not Style.SELECTED
        text = number(value, column.is_rate).rjust(width)
        spans.append(Span(text, Style.ALARM if alarm else style))
    return tuple(spans)


def _foot(view: View, width: int) -> Line:
    text = next((text for text in HELP if len(text) <= width), HELP[-1])
    if view.typing:
        text = "type a part of a name; enter keeps the filter, escape removes it"
    return _cut((Span(text, Style.FAINT),), width)


def _cut(line: Line, width: int) -> Line:
    """Return the part of a line that fits."""
    found: list[Span] = []
    for text, style in line:
        found.append(Span(text[:width], style))
        width -= len(found[-1].text)
    return tuple(found)
