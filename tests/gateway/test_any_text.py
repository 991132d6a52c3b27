"""Random text of other parties, through a running HAProxy: it stays text."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from kproxy.gateway.core import routes
from kproxy.gateway.core.configuration import Server
from kproxy.gateway.core.render import render
from kproxy.model import NamespacedName, Origin
from tests.gateway.client import exchange, head
from tests.gateway.echo import Echo
from tests.gateway.running import serving
from tests.ports import kept_ports

PIECES = [
    *(
        "'",
        '"',
        "\\",
        "%",
        "%[src]",
        "%%",
        "${HOME}",
        "$1",
        "`",
        "#",
        "{",
        "}",
        "}}",
        "(",
        ")",
        "[",
        "]",
        ",",
    ),
    *(
        " ",
        "  ",
        ";",
        "|",
        "||",
        "or",
        "!",
        "if",
        "unless",
        "--",
        "-m reg",
        "-f x",
        "\\n",
        "%0a",
        "é",
        "\u4e2d",
    ),
    *(
        "http-request deny",
        "a",
        "Z",
        "0",
        "<",
        ">",
        "&",
        "=",
        ":",
        "/",
        "*",
        "?",
        "+",
        ".",
        "~",
        "^",
        "@",
        "%{+Q}o",
    ),
]
COUNT = 150


def texts() -> list[str]:
    """Different texts of one to six pieces. Blanks around a header are no part of its value."""
    chance = random.Random(14)
    found = PIECES + ["".join(chance.choices(PIECES, k=chance.randint(2, 6))) for _ in range(COUNT)]
    return sorted({text.strip() for text in found if text.strip()})


def _forwarding(every: list[str], shares: tuple[routes.Share, routes.Share]) -> Iterator[routes.Route]:
    owner = routes.Owner("HTTPRoute", NamespacedName("default", "any"), Origin("f", ""))
    matched, other = (routes.Forward((share,)) for share in shares)
    for number, text in enumerate(every):
        header = (routes.HeaderFilter(routes.Modified.REQUEST, set=(("X-Set", text),)),)
        host, path = routes.Host(f"n{number}.test"), routes.PathMatch(routes.PathKind.PREFIX, "/")
        conditions = routes.Match(path, headers=(routes.ValueMatch("x-match", text),))
        yield routes.Route("http", owner, host, conditions, matched, header, index=(number, 0))
        yield routes.Route("http", owner, host, routes.Match(path), other, header, index=(number, 1))


def test_text_of_other_parties_stays_text(tmp_path: Path) -> None:
    every, names = texts(), {"127.1.1.1": "matched", "127.1.1.2": "other"}
    shares = (
        routes.Share("default/matched:80", (Server("10.0.1.1", 80),)),
        routes.Share("default/other:80", (Server("10.0.1.2", 80),)),
    )
    with kept_ports(1) as (port,):
        rendered = render(
            routes.Routing((routes.Listener("http", port, "127.0.0.1"),), tuple(_forwarding(every, shares)))
        )
        assert rendered.problems == []
        with serving(rendered.configuration, tmp_path, (port,), Echo(names)):
            for number, text in enumerate(every):
                for sent, name in ((text, "matched"), (f"{text}.", "other")):
                    line = f"X-Match: {sent}".encode().decode("latin-1")
                    reply = exchange(port, head(f"n{number}.test", "/", [line]))
                    assert reply.seen["name"] == name
                    assert reply.got("x-set").encode("latin-1").decode() == text
