"""`kproxy graph`: what the pictures show, where the boxes stand, and that no text can change the file."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kproxy.cli import main
from kproxy.picture.dot import dot
from kproxy.picture.layout import BOX, CHARACTER, LONGEST, MARGIN, PADDING, SHAPE, SHOWN, Box, place
from kproxy.picture.services import EndpointView, FrontendView, ListView, PortView, ServiceView
from kproxy.picture.svg import svg
from kproxy.printable import printable
from tests.breaks import FLAGS, healthy, pod
from tests.unit.make import service

SVG = "{http://www.w3.org/2000/svg}"


def endpoint(number: int) -> EndpointView:
    """Return an endpoint that gets connections."""
    return EndpointView(f"10.244.1.{number}:8080", f"web-{number}", "n1", False, Fraction(1, 2), "")


def of(name: str, endpoints: int = 2, frontends: int = 1, policies: tuple[str, ...] = ()) -> ServiceView:
    """Return a Service with one port."""
    found = ListView("", "", tuple(endpoint(number) for number in range(endpoints)))
    ways = tuple(FrontendView(f"10.96.0.{n}:80/tcp", "ClusterIP", (0,)) for n in range(frontends))
    return ServiceView(name, "ClusterIP", policies, (PortView("http 80/tcp", ways, (found,)),))


def texts(picture: str) -> list[str]:
    """Return the texts of an SVG picture, without the legend."""
    return [each.text or "" for each in ElementTree.fromstring(picture).iter(f"{SVG}text")][:-1]


def graph(folder: Path, objects: dict[str, Any], *arguments: str) -> int:
    """Run the command on manifests. Returns its exit status."""
    path = folder / "in.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects.values())}))
    flags = [*FLAGS.split(), "-f", str(path), "--state-dir", str(folder / "state")]
    return main(["graph", *arguments, *flags])


WORLD = healthy() | {
    "web-3": pod("web-3", "10.244.2.3", node="n2"),
    "local": service(
        "local",
        type="NodePort",
        clusterIP="10.96.0.9",
        selector={"app": "web"},
        externalTrafficPolicy="Local",
        sessionAffinity="ClientIP",
        ports=[{"port": 81, "nodePort": 30081, "targetPort": 8080}],
    ),
    "empty": service("empty", clusterIP="10.96.0.10", selector={"app": "none"}, ports=[{"port": 80}]),
}
WORLD["web-3"]["status"]["conditions"][0]["status"] = "False"
SHOWS = [
    ("default/web  NodePort",),
    ("10.96.0.1:80/tcp  ClusterIP", "192.0.2.1:30080/tcp  NodePort", "http 80/tcp"),
    (" 50.0%  10.244.1.2:8080  web-1 on n1", " 50.0%  10.244.2.2:8080  web-2 on n2"),
    ("    no  10.244.2.3:8080  web-3 on n2  not ready",),
    ("default/local  NodePort", "sessionAffinity: ClientIP (3h)", "externalTrafficPolicy: Local"),
    ("81/tcp", "81/tcp  from outside", "    no  10.244.2.2:8080  web-2 on n2  policy Local"),
    ("default/empty  ClusterIP", "80/tcp  ✕ refused"),
    ("default/balanced  LoadBalancer", "198.51.100.7:80/tcp  LoadBalancer"),
    ("loadBalancerSourceRanges: 203.0.113.0/24",),
    ("default/headless  headless", "default/outer  ExternalName", "externalName: example.com"),
]  # fmt: skip


QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
"""A string of DOT, in which a backslash escapes a quote or a backslash."""


def labels(graph: str) -> list[str]:
    r"""Return the lines of all strings of a DOT file. `\l` ends a line."""
    found = (re.split(r"(?<!\\)(?:\\\\)*\\l", text) for text in QUOTED.findall(graph))
    return [re.sub(r"\\(.)", r"\1", line) for lines in found for line in lines]


@pytest.mark.parametrize("row", SHOWS, ids=lambda row: row[0].strip())
def test_both_formats_show(tmp_path: Path, capsys: pytest.CaptureFixture[str], row: tuple[str, ...]) -> None:
    assert graph(tmp_path, WORLD) == 0
    shown = texts(capsys.readouterr().out)
    assert graph(tmp_path, WORLD, "-o", "dot") == 0
    drawn = labels(capsys.readouterr().out)
    for text in row:
        assert text in shown
        assert text.strip() in drawn


ERRORS = [
    (("wbe",), 1, "Service default/wbe not found."),
    (("-o", "yaml"), 2, "--output: 'yaml' is not one of svg, dot."),
]


@pytest.mark.parametrize(("arguments", "status", "expected"), ERRORS)
def test_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, expected: str
) -> None:
    assert graph(tmp_path, WORLD, *arguments) == status
    assert expected in capsys.readouterr().err


def test_names_and_a_namespace_select(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {key for key, value in WORLD.items() if value["kind"] == "Service"}
    world = WORLD | {"other": service("other", clusterIP="10.96.0.11", ports=[{"port": 80}])}
    world["other"]["metadata"]["namespace"] = "shop"
    for arguments, expected in (
        ((), {*(f"default/{name}" for name in own), "shop/other"}),
        (("web", "other.shop"), {"default/web", "shop/other"}),
        (("svc/web", "service/shop/other"), {"default/web", "shop/other"}),
        (("-n", "shop"), {"shop/other"}),
    ):
        assert graph(tmp_path, world, *arguments) == 0
        titles = re.findall(r'class="title"[^>]*>(\S+)', capsys.readouterr().out)
        assert set(titles) == expected


def test_too_many_services_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = {str(n): service(f"s{n}", ports=[{"port": 80}]) for n in range(501)}
    assert graph(tmp_path, many) == 1
    assert "501 Services are too many for a graph (at most 500)." in capsys.readouterr().err


# --- where the boxes stand ---


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes have a point in common."""
    return one.x < other.x + other.width and other.x < one.x + one.width and abs(one.y - other.y) < BOX


@pytest.mark.parametrize("count", [1, 2, 7, 50])
def test_boxes_do_not_overlap_and_contain_their_texts(count: int) -> None:
    services = [of(f"default/s{n}", n % 6, 1 + n % 4, ("a policy",) * (n % 3)) for n in range(count)]
    picture = place(services)
    assert not [pair for pair in combinations(picture.boxes, 2) if overlap(*pair)]
    for box in picture.boxes:
        assert box.x >= MARGIN
        assert box.y >= MARGIN
        assert box.x + box.width <= picture.width - MARGIN
        assert box.y + BOX <= picture.height - MARGIN
        assert len(box.text) * CHARACTER <= box.width - 2 * PADDING + 0.01
    for heading in picture.headings:
        assert heading.x + len(heading.text) * CHARACTER <= picture.width
    assert count < 50 or picture.height <= SHAPE * picture.width


@pytest.mark.parametrize("services", [[], [of("a")]])
def test_the_legend_fits(services: list[ServiceView]) -> None:
    root = ElementTree.fromstring(svg(services, "Services on node " + "n" * 300))
    legend = list(root.iter(f"{SVG}text"))[-1]
    assert "dashed: gets no new connections" in (legend.text or "")
    assert MARGIN + len(legend.text or "") * CHARACTER <= float(root.attrib["width"])


def test_a_long_list_is_counted_and_a_long_text_is_cut() -> None:
    service = of("default/" + "x" * 100, endpoints=SHOWN + 5)
    shown = texts(svg([service], "title"))
    assert "and 5 more" in shown
    assert max(map(len, shown)) <= LONGEST
    assert all(f'label="{text}' in dot([service], "title") for text in ("and 5 more", "default/" + "x" * 100))


# --- any text ---


def of_text(text: str) -> list[ServiceView]:
    """Return a Service in which each text is this one."""
    view = EndpointView(text, text, text, False, Fraction(1), text)
    port = PortView(text, (FrontendView(text, text, (0,)),), (ListView(text, text, (view,)),))
    return [ServiceView(text, text, (text,), (port,))]


def tags(picture: str) -> list[tuple[str, list[str]]]:
    """Return the elements of a picture with the names of their attributes."""
    return [(each.tag, sorted(each.attrib)) for each in ElementTree.fromstring(picture).iter()]


@given(st.text(min_size=1, max_size=15))
@example('"</text><script>alert(1)</script>')
@example("]]><!--&#0;\x00\ufffe\ud800\\")
@settings(max_examples=100, deadline=None)
def test_any_text_is_only_text(text: str) -> None:
    # The words of an empty column are left out, so no text is empty. Long texts have a title of their own.
    assert [each for each in tags(svg(of_text(text), text)) if each[0] != f"{SVG}title"] == [
        each for each in tags(svg(of_text("a"), "a")) if each[0] != f"{SVG}title"
    ]
    assert QUOTED.sub("", dot(of_text(text), text)) == QUOTED.sub("", dot(of_text("a"), "a"))
    assert labels(dot(of_text(text), text))[0] == printable(text)
