"""HTML whose text is escaped, and whose size is limited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from kproxy.printable import printable


def text(value: object, longest: int = 200) -> str:
    """Return a text as HTML. The end of a long one is cut."""
    found = str(value)
    return escape(printable(found if len(found) <= longest else f"{found[: longest - 1]}…"))


def element(name: str, *content: str, kind: str = "") -> str:
    """Return an element. `content` is HTML."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<{name}{attribute}>{''.join(content)}</{name}>"


def row(cells: Iterable[str]) -> str:
    """Return a row of a table. `cells` are HTML. HTML allows to leave out the closing tags."""
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)


def within(parts: Iterable[str], budget: int) -> Iterator[str]:
    """Return the parts from the first one on, as long as they fit into a number of bytes."""
    for part in parts:
        budget -= len(part.encode())
        if budget < 0:
            return
        yield part
