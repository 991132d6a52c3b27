"""A picture as SVG. All text is escaped; the file refers to nothing outside and contains no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from kproxy.picture.layout import (
    BOX,
    CHARACTER,
    MARGIN,
    PADDING,
    Box,
    Heading,
    Line,
    Picture,
    Style,
    cut,
    place,
)
from kproxy.picture.services import ServiceView
from kproxy.printable import printable

STYLE = """
text { font: 12px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #000; white-space: pre }
.title { font-weight: bold; font-size: 13px }
.note { fill: #444; font-style: italic }
rect { fill: #fff; stroke: #333; stroke-width: 1 }
.paper { stroke: none }
.frontend rect { fill: #e6eef8 }
.list rect { fill: #eee }
.empty rect { fill: #fff; stroke-width: 3; stroke: #900 }
.empty text { font-weight: bold }
.here rect { stroke-width: 3 }
.unused rect { stroke-dasharray: 4 3 }
.unused text { fill: #444; font-style: italic }
.rest rect { stroke: none }
path { fill: none; stroke: #555; stroke-width: 1.2 }
"""
ROUND = {Style.FRONTEND: BOX / 2, Style.LIST: 4.0, Style.EMPTY: 4.0}
LEGEND = (
    "round: address of a Service   thick: endpoint on this node   dashed: gets no new connections   "
    "✕: clients fail"
)
LEGEND_HEIGHT = 34.0


def svg(services: Sequence[ServiceView], title: str) -> str:
    """Return a complete SVG file."""
    picture, title = place(services), cut(title)
    legend = f"{title}   {LEGEND}"
    width = max(picture.width, len(legend) * CHARACTER + 2 * MARGIN)
    picture = picture._replace(width=width, height=picture.height + LEGEND_HEIGHT)
    return "".join(f"{line}\n" for line in _lines(picture, _escaped(title), _escaped(legend)))


def _lines(picture: Picture, title: str, legend: str) -> Iterator[str]:
    width, height = picture.width, picture.height
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>'
    yield f"<title>{title}</title>"
    yield f"<style>{STYLE}</style>"
    yield f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>'
    yield from map(_line, picture.lines)
    yield from map(_box, picture.boxes)
    yield from map(_heading, picture.headings)
    yield f'<text class="note" x="{MARGIN:.0f}" y="{height - 16:.0f}">{legend}</text>'
    yield "</svg>"


def _line(line: Line) -> str:
    (x, y), (to_x, to_y) = line
    middle = (x + to_x) / 2
    return f'<path d="M{x:.1f} {y:.1f}C{middle:.1f} {y:.1f} {middle:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"/>'


def _box(box: Box) -> str:
    at = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{BOX:.0f}"'
    text = f'<text x="{box.x + PADDING:.1f}" y="{box.y + 14:.1f}">{_escaped(cut(box.text))}</text>'
    full = f"<title>{_escaped(box.text)}</title>" if cut(box.text) != box.text else ""
    return f'<g class="{box.style}">{full}<rect {at} rx="{ROUND.get(box.style, 0.0):.0f}"/>{text}</g>'


def _heading(heading: Heading) -> str:
    kind = "title" if heading.is_title else "note"
    return (
        f'<text class="{kind}" x="{heading.x:.1f}" y="{heading.y:.1f}">{_escaped(cut(heading.text))}</text>'
    )


def _escaped(text: str) -> str:
    return escape(printable(text))
