"""Services in the language of graphviz (DOT), for its layouts and for other programs that read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kproxy.picture.layout import (
    Style,
    endpoint_text,
    frontend_text,
    list_text,
    rest_text,
    shown,
    style_of,
    title,
)
from kproxy.picture.services import ListView, PortView, ServiceView
from kproxy.printable import printable

STYLES = {
    Style.FRONTEND: 'style="rounded,filled",fillcolor="#e6eef8"',
    Style.LIST: 'style=filled,fillcolor="#eeeeee"',
    Style.EMPTY: "penwidth=3,color=red4",
    Style.ENDPOINT: "",
    Style.HERE: "penwidth=3",
    Style.UNUSED: "style=dashed",
    Style.REST: "shape=plaintext",
}


def dot(services: Sequence[ServiceView], name: str) -> str:
    """Return a complete directed graph. Each Service is a cluster."""
    return "".join(f"{line}\n" for line in _graph(services, name))


def _graph(services: Sequence[ServiceView], name: str) -> Iterator[str]:
    yield f"digraph {_quoted(name)} {{"
    yield "    rankdir=LR"
    yield "    node [shape=box,height=0.25,fontname=monospace,fontsize=10]"
    yield "    graph [fontname=monospace,fontsize=11,labeljust=l]"
    for number, service in enumerate(services):
        yield f"    subgraph cluster_{number} {{"
        yield f"        label={_quoted(title(service), *service.policies)}"
        for position, port in enumerate(service.ports):
            yield from (f"        {line}" for line in _port(port, f"s{number}p{position}"))
        yield "    }"
    yield "}"


def _port(port: PortView, own: str) -> Iterator[str]:
    for number, found in enumerate(port.lists):
        yield _node(f"{own}l{number}", list_text(port, found), Style.EMPTY if found.result else Style.LIST)
        yield from _endpoints(found, f"{own}l{number}")
    for number, frontend in enumerate(port.frontends):
        yield _node(f"{own}f{number}", frontend_text(frontend), Style.FRONTEND)
        yield from (f"{own}f{number} -> {own}l{to}" for to in frontend.lists)


def _endpoints(found: ListView, own: str) -> Iterator[str]:
    for number, endpoint in enumerate(shown(found)):
        yield _node(f"{own}e{number}", endpoint_text(endpoint).strip(), style_of(endpoint))
        hidden = " [style=invis]" if endpoint.why else ""
        yield f"{own} -> {own}e{number}{hidden}"
    if rest := rest_text(found):
        yield _node(f"{own}rest", rest, Style.REST)
        yield f"{own} -> {own}rest"


def _node(name: str, text: str, style: Style) -> str:
    attributes = ",".join(part for part in (f"label={_quoted(text)}", STYLES[style]) if part)
    return f"{name} [{attributes}]"


def _quoted(*lines: str) -> str:
    r"""Return a quoted string. `\l` ends each of several lines, which are aligned to the left."""
    escaped = [printable(line).replace("\\", "\\\\").replace('"', '\\"') for line in lines]
    return '"' + "".join(f"{line}\\l" for line in escaped) + '"' if len(lines) > 1 else f'"{escaped[0]}"'
