"""Places Services on a plane: rows of boxes in three columns, and lines between them.

A Service is a block: on the left its frontends, in the middle the lists of endpoints that they lead to, on
the right the endpoints. A pod that serves two Services is drawn twice, so that no lines of two blocks cross.
Blocks stand below each other, in as many columns as a picture with the shape of a page needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from kproxy.picture.services import EndpointView, FrontendView, ListView, PortView, ServiceView

CHARACTER = 7.3
"""The width of a character."""
ROW, BOX = 26.0, 20.0
"""The distance of two rows, and the height of a box."""
MARGIN, GAP = 20.0, 60.0
"""Around the picture, and between the columns of a block."""
BETWEEN = 26.0
"""Between two blocks."""
PADDING = 8.0
"""Between the border of a box and its text."""
LINE = 18.0
"""The height of a line of text without a box."""
LONGEST = 60
"""The maximum number of characters of a text. The rest is cut."""
SHOWN = 20
"""The maximum number of endpoints of a list. The others are counted."""
SHAPE = 1.4
"""The maximum ratio of height to width, if there are several blocks."""


class Style(StrEnum):
    """How a box looks. Each style differs in its shape, not only in colour."""

    FRONTEND = "frontend"
    LIST = "list"
    EMPTY = "empty"
    """A list without endpoints: clients fail."""
    ENDPOINT = "endpoint"
    HERE = "here"
    """An endpoint on this node."""
    UNUSED = "unused"
    """An endpoint that gets no new connections."""
    REST = "rest"
    """Stands for further endpoints."""


class Box(NamedTuple):
    """A box with a text."""

    x: float
    y: float
    width: float
    text: str
    style: Style

    @property
    def left(self) -> tuple[float, float]:
        """Where lines end."""
        return self.x, self.y + BOX / 2

    @property
    def right(self) -> tuple[float, float]:
        """Where lines begin."""
        return self.x + self.width, self.y + BOX / 2


class Line(NamedTuple):
    """A line from a box to another one."""

    begin: tuple[float, float]
    end: tuple[float, float]


class Heading(NamedTuple):
    """A line of text without a box."""

    x: float
    y: float
    """Of the base line."""
    text: str
    is_title: bool


class Picture(NamedTuple):
    """Boxes, lines and texts on a plane."""

    width: float
    height: float
    headings: list[Heading]
    boxes: list[Box]
    lines: list[Line]


class Columns(NamedTuple):
    """The positions of the three columns of a block, relative to its left end, and their widths."""

    frontends: tuple[float, float]
    lists: tuple[float, float]
    endpoints: tuple[float, float]

    @property
    def width(self) -> float:
        """The width of a block."""
        return sum(self.endpoints)


def cut(text: str) -> str:
    """Return the text, or its beginning if it is too long."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def place(services: Sequence[ServiceView]) -> Picture:
    """Place Services in their order, from top to bottom and then from left to right."""
    columns = _columns(services)
    picture = Picture(0, 0, [], [], [])
    x, width, y, bottom = MARGIN, MARGIN, MARGIN, MARGIN
    limit = _height(services, columns)
    for service in services:
        height = _block_height(service)
        if y > MARGIN and y + height > limit:
            x, y = x + columns.width + GAP, MARGIN
        _Block(picture, columns, x, y).draw(service)
        y += height + BETWEEN
        width, bottom = max(width, x + columns.width), max(bottom, y - BETWEEN)
    return picture._replace(width=width + MARGIN, height=bottom + MARGIN)


def _height(services: Iterable[ServiceView], columns: Columns) -> float:
    """Return the height after which a new column of blocks begins."""
    total = sum(_block_height(service) + BETWEEN for service in services)
    count = 1
    while total / count > SHAPE * count * (columns.width + GAP):
        count += 1
    return MARGIN + total / count + BETWEEN


def _columns(services: Sequence[ServiceView]) -> Columns:
    ports = [port for service in services for port in service.ports]
    lists = [each for port in ports for each in port.lists]
    frontends = _width(frontend_text(each) for port in ports for each in port.frontends)
    middle = _width(list_text(port, each) for port in ports for each in port.lists)
    endpoints = _width(endpoint_text(endpoint) for each in lists for endpoint in shown(each))
    titles = _width([text for service in services for text in (title(service), *service.policies)])
    at = frontends + GAP, frontends + 2 * GAP + middle
    return Columns((0.0, frontends), (at[0], middle), (at[1], max(endpoints, titles - at[1])))


def _width(texts: Iterable[str]) -> float:
    return max((len(cut(text)) for text in texts), default=0) * CHARACTER + 2 * PADDING


# --- texts ---


def title(service: ServiceView) -> str:
    """Return the first line of a block."""
    return f"{service.name}  {service.type}"


def frontend_text(frontend: FrontendView) -> str:
    """Return the text of a frontend."""
    return f"{frontend.address}  {frontend.kind}"


def list_text(port: PortView, found: ListView) -> str:
    """Return the text of a list of endpoints."""
    words = (port.name, found.clients, f"✕ {found.result}" if found.result else "")
    return "  ".join(word for word in words if word)


def endpoint_text(endpoint: EndpointView) -> str:
    """Return the text of an endpoint."""
    share = f"{float(endpoint.share):6.1%}" if endpoint.share else "    no"
    return "  ".join(word for word in (share, endpoint.address, endpoint.place, endpoint.why) if word)


def shown(found: ListView) -> tuple[EndpointView, ...]:
    """Return the endpoints to show: at most `SHOWN`, those that get connections first."""
    return tuple(sorted(found.endpoints, key=lambda each: bool(each.why))[:SHOWN])


def rest_text(found: ListView) -> str:
    """Return the text that stands for the endpoints that are not shown; "" if all are."""
    more = len(found.endpoints) - SHOWN
    return f"and {more} more" if more > 0 else ""


def style_of(endpoint: EndpointView) -> Style:
    """Return the style of an endpoint."""
    if endpoint.why:
        return Style.UNUSED
    return Style.HERE if endpoint.is_here else Style.ENDPOINT


# --- a block ---


def _rows(found: ListView) -> int:
    return max(1, len(shown(found)) + bool(rest_text(found)))


def _port_rows(port: PortView) -> int:
    return max(len(port.frontends), sum(map(_rows, port.lists)))


def _head(service: ServiceView) -> float:
    return LINE * (1 + len(service.policies)) + 4


def _block_height(service: ServiceView) -> float:
    return _head(service) + ROW * sum(map(_port_rows, service.ports))


class _Block(NamedTuple):
    """Draws one Service."""

    picture: Picture
    columns: Columns
    x: float
    y: float

    def draw(self, service: ServiceView) -> None:
        """Add its texts, boxes and lines."""
        for number, text in enumerate((title(service), *service.policies)):
            y = self.y + LINE * (number + 1) - 5
            self.picture.headings.append(Heading(self.x, y, text, not number))
        y = self.y + _head(service)
        for port in service.ports:
            self._port(port, y)
            y += ROW * _port_rows(port)

    def _port(self, port: PortView, y: float) -> None:
        rows, lists, row = _port_rows(port), [], y + ROW * self._above(port)
        for found in port.lists:
            middle = row + ROW * (_rows(found) - 1) / 2
            style = Style.EMPTY if found.result else Style.LIST
            lists.append(self._box(self.columns.lists, middle, list_text(port, found), style))
            self._endpoints(found, lists[-1], row)
            row += ROW * _rows(found)
        begin = y + ROW * (rows - len(port.frontends)) / 2
        for number, frontend in enumerate(port.frontends):
            at = begin + ROW * number
            box = self._box(self.columns.frontends, at, frontend_text(frontend), Style.FRONTEND)
            self.picture.lines.extend(Line(box.right, lists[to].left) for to in frontend.lists)

    def _above(self, port: PortView) -> float:
        """Return the rows above the first list, so that the lists stand in the middle."""
        return (_port_rows(port) - sum(map(_rows, port.lists))) / 2

    def _endpoints(self, found: ListView, box: Box, y: float) -> None:
        for number, (text, style) in enumerate(_texts(found)):
            endpoint = self._box(self.columns.endpoints, y + ROW * number, text, style)
            if style is not Style.UNUSED:
                self.picture.lines.append(Line(box.right, endpoint.left))

    def _box(self, column: tuple[float, float], y: float, text: str, style: Style) -> Box:
        box = Box(self.x + column[0], y, column[1], text, style)
        self.picture.boxes.append(box)
        return box


def _texts(found: ListView) -> Iterator[tuple[str, Style]]:
    yield from ((endpoint_text(each), style_of(each)) for each in shown(found))
    if rest := rest_text(found):
        yield rest, Style.REST
