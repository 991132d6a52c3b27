"""What HAProxy replies to `show` commands. HAProxy's management guide defines the formats.

Anything unexpected raises ValueError: the process is not the one that kproxy configured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kproxy.gateway.core.configuration import SLOT, Entries, Server, State
from kproxy.gateway.core.plan import Slots

MAINTENANCE, DRAINING = 0x01, 0x08
"""Bits of srv_admin_state. The file sets the first one for an empty slot."""
_COLUMNS = ("be_name", "srv_name", "srv_addr", "srv_admin_state", "srv_uweight", "srv_port")
_ENTRY = re.compile(r"0x[0-9a-f]+ (\S+) (.*)")
_LISTED = re.compile(r"(\S+):(\d+)(?: \[[^\]]*\])?((?: \S+)*)")


def information(reply: str) -> dict[str, str]:
    """Return the lines `NAME: VALUE` of `show info` and `show ssl cert FILE`."""
    pairs = (line.split(":", 1) for line in reply.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def servers(reply: str) -> dict[str, Slots]:
    """Return the slots of each backend, from `show servers state`."""
    version, header, *rows = reply.strip().splitlines()
    if version.strip() != "1":
        raise ValueError(f"version {version} of `show servers state`")
    places = [header.lstrip("# ").split().index(name) for name in _COLUMNS]
    found: dict[str, list[Server | None]] = {}
    for row in rows:
        words = row.split()
        if len(words) <= max(places):
            raise ValueError(f"a row of {len(words)} columns")
        backend, name, *values = (words[place] for place in places)
        slots = found.setdefault(backend, [])
        if name != f"{SLOT}{len(slots) + 1}":
            raise ValueError(f"server {backend}/{name} where s{len(slots) + 1} is expected")
        slots.append(_server(*values))
    return {backend: tuple(slots) for backend, slots in found.items()}


def _server(address: str, admin: str, weight: str, port: str) -> Server | None:
    state = int(admin)
    if state & MAINTENANCE:
        return None
    return Server(address, int(port), int(weight), State.DRAIN if state & DRAINING else State.READY)


def entries(reply: str) -> Entries:
    """Return the entries of `show map FILE`."""
    found = [_ENTRY.fullmatch(line) for line in reply.splitlines() if line.strip()]
    if not all(found):
        raise ValueError(reply.strip())
    return tuple((each[1], each[2]) for each in found if each)


def certificates(reply: str) -> list[str]:
    """Return the file names of `show ssl cert`, without transactions that are not committed."""
    return [line for line in reply.splitlines() if line.strip() and not line.startswith(("#", "*"))]


def listed(reply: str) -> Iterator[tuple[int, tuple[str, tuple[str, ...]]]]:
    """Yield the number of each line, the certificate and its hosts, from `show ssl crt-list -n FILE`."""
    for line in reply.splitlines():
        if line.strip() and not line.startswith("#"):
            if not (found := _LISTED.fullmatch(line.strip())):
                raise ValueError(f"entry {line!r} of a certificate list")
            yield int(found[2]), (found[1], tuple(found[3].split()))


def version(reply: str) -> int:
    """Return the number of the version that `prepare map` made."""
    if not (found := re.fullmatch(r"New version created: (\d+)", reply.strip())):
        raise ValueError(reply.strip())
    return int(found[1])
