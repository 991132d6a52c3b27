"""The files of an HAProxy process, and what their text says about a complaint of HAProxy.

HAProxy reads two configuration files. `process.cfg` is about the process: its sockets, user, and which
configuration it has. `haproxy.cfg` is the text of the `Configuration`, with servers in the slots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import sha256
from typing import NamedTuple

from kproxy.gateway.core.configuration import Configuration, with_servers
from kproxy.gateway.core.plan import certificate_line
from kproxy.limits import GATEWAY_DRAIN_SECONDS

PROCESS, TEXT = "process.cfg", "haproxy.cfg"
PID = "pid"
_PLACE = re.compile(rf"\[{re.escape(TEXT)}:(\d+)\]")
_SECTION = re.compile(r"(?:global|defaults|frontend|backend|listen|userlist|peers|resolvers|cache)\b")
_ALERT = re.compile(r"^\[ALERT\]\s+\(\d+\) : (?:config : )?", re.MULTILINE)


class Identity(NamedTuple):
    """Which user HAProxy becomes after it has opened its sockets and files."""

    user: str = ""
    """ "" for the user that starts it."""
    root: str = ""
    """The empty folder in which it is confined (chroot); "" for none."""


def control_socket(folder: str) -> str:
    """Return the name of the socket for commands in a folder.

    A process takes over the sockets of the one before that have the same name, and makes none then.
    """
    return f"haproxy-{folder}.sock"


def metrics_socket(folder: str) -> str:
    """Return the name of the socket of the exporter in a folder."""
    return f"metrics-{folder}.sock"


def digest(desired: Configuration) -> str:
    """Return a text that differs if only a reload leads from one configuration to the other."""
    found = sha256(desired.text.encode())
    for name, content in sorted(desired.files.items()):
        found.update(b"\0%s\0%d\0%s" % (name.encode(), len(content), content))
    return found.hexdigest()[:32]


def files(desired: Configuration, identity: Identity, folder: str, place: str = "") -> dict[str, bytes]:
    """Return the contents of all files of a folder by name.

    `place`: its path and a slash, if HAProxy is not started in it.
    """
    texts = {
        PROCESS: process_text(digest(desired), identity, folder, place),
        TEXT: with_servers(desired.text, desired.backends),
        **{
            file: "".join(f"{certificate_line(*entry)}\n" for entry in entries)
            for file, entries in desired.certificate_lists.items()
        },
        **{
            file: "".join(f"{key} {value}\n" for key, value in entries)
            for file, entries in desired.maps.items()
        },
    }
    contents = {name: text.encode() for name, text in texts.items()}
    return {**desired.files, **desired.certificates, **contents}


def process_text(description: str, identity: Identity, folder: str, place: str = "") -> str:
    """Return the file about the process. It opens its sockets in its folder."""
    return "".join(f"{line}\n" for line in _process_lines(description, identity, folder, place))


def _process_lines(description: str, identity: Identity, folder: str, place: str) -> Iterator[str]:
    yield "global"
    yield f"    stats socket unix@{place}{control_socket(folder)} mode 600 level admin expose-fd listeners"
    yield f"    description {description}"
    yield f"    hard-stop-after {GATEWAY_DRAIN_SECONDS}s"
    if identity.user:
        yield f"    user {identity.user}"
        yield f"    group {identity.user}"
    if identity.root:
        yield f"    chroot {identity.root}"
    yield "frontend kproxy-metrics"
    yield f"    bind unix@{place}{metrics_socket(folder)} mode 600"
    yield "    mode http"
    yield "    timeout client 10s"
    yield "    http-request use-service prometheus-exporter"


def complaint(output: str, text: str) -> str:
    """Return what HAProxy says about its configuration, with the section and comment of the line."""
    alerts = [each.strip() for each in _ALERT.split(output)[1:]]
    message = next((each.splitlines()[0] for each in alerts if each), "") or output.strip()[:200]
    place = _PLACE.search(message)
    return f"{message} ({origin(text, int(place[1]))})" if place else message


def refused_objects(output: str, text: str) -> dict[str, str]:
    """Return the objects whose directives HAProxy refuses, as the comments in the text name them, and why."""
    found: dict[str, str] = {}
    for alert in _ALERT.split(output)[1:]:
        for place in _PLACE.finditer(alert):
            if comment := _place(text, int(place[1]))[1]:
                found.setdefault(
                    comment, _PLACE.sub("", alert.splitlines()[0]).removeprefix("parsing").strip(" :")
                )
    return found


def origin(text: str, line: int) -> str:
    """Return the section of a line, and the nearest comment above it in the section."""
    return ": ".join(filter(None, _place(text, line)))


def _place(text: str, line: int) -> tuple[str, str]:
    comment = ""
    for each in reversed(text.splitlines()[:line]):
        if not comment and each.strip().startswith("#"):
            comment = each.strip(" #")
        if _SECTION.match(each):
            return each, comment
    return "", comment
