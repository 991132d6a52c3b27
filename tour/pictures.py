"""The pictures of the report, as SVG: the lab, and where the requests of a step went. Pure."""

from collections.abc import Sequence
from html import escape

from netns_lab.topology import Client, Topology

from tour.walk import Result

ROW = 34
BOX = 26
CHARACTER = 7.3
"""The width of a character of the font in the boxes."""


def lab(topology: Topology) -> str:
    """Return a picture of the lab: the hosts outside, the LAN, the node and its pods."""
    (node,) = topology.nodes
    hosts = [_described(topology, host) for host in topology.clients]
    pods = [(pod.name, pod.v4) for pod in topology.pods]
    height = 40 + ROW * (max(len(hosts), len(pods)) + 1)
    middle = height / 2
    parts = [
        _text(20, 22, "outside", "heading"),
        _text(470, 22, "the node with kproxy, and its pods", "heading"),
    ]
    for number, (name, address) in enumerate(hosts):
        top = 40 + ROW * number
        parts += [_box(20, top, 300, f"{name}  {address}"), _line(320, top + BOX / 2, 390, middle)]
    parts += [f'<rect class="zone" x="460" y="32" width="500" height="{height - 44}"/>']
    parts += [_text(378, middle - 14, "LAN"), _line(390, middle, 480, middle)]
    parts += [_box(480, middle - BOX / 2, 190, f"{node.name}  {node.v4}", "node")]
    for number, (name, address) in enumerate(pods):
        top = 52 + ROW * number
        parts += [_line(670, middle, 700, top + BOX / 2), _box(700, top, 245, f"{name}  {address}", "pod")]
    return _svg(980, height, "The lab", parts)


def requests(result: Result) -> str:
    """Return a picture of a step's requests: the client, the address, and the hosts that answered."""
    answers = result.answers
    targets = list(dict.fromkeys([*(result.pods if "kubia" in " ".join(answers) else ()), *answers]))
    height = 16 + ROW * len(targets)
    middle = height / 2
    first, second = result.host or "this machine", result.destination
    parts = [_box(10, middle - BOX / 2, 150, first, "pod" if first in result.pods else "")]
    width = max(180, CHARACTER * len(second) + 20)
    parts += [_line(160, middle, 200, middle), _box(200, middle - BOX / 2, width, second, "service")]
    right = 200 + width
    for number, name in enumerate(targets):
        top, count = 8 + ROW * number, answers.get(name, 0)
        kind = "pod" if count else "idle"
        parts += [
            _line(right, middle, right + 130, top + BOX / 2, 1 + 5 * count / sum(answers.values()))
        ] * bool(count)
        parts += [_box(right + 130, top, 150, name, kind)]
        parts += [_text(right + 290, top + 18, f"{count} answer{'s' * (count != 1)}" if count else "none")]
    return _svg(right + 380, height, f"Requests to {second}", parts)


def _described(topology: Topology, host: Client) -> tuple[str, str]:
    return host.name, topology.addresses(host)[4]


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">'
    return f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>"


def _box(x: float, y: float, width: float, text: str, kind: str = "") -> str:
    rect = f'<rect class="box {kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{BOX}" rx="4"/>'
    return rect + _text(x + 8, y + 18, text, "idle" if kind == "idle" else "")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, width: float = 1.2) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke-width="{width:.1f}"/>'
