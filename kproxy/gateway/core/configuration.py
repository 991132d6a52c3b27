"""What HAProxy is to be, in the parts that can change on their own.

HAProxy takes new servers, map entries and certificates over its socket. Only a change of its configuration
file needs a reload, which starts a second process and costs a third of a second. So the file contains none of
the former: each backend has a number of slots for servers, and hosts and paths are looked up in maps.

`Configuration.text` is this file. Two configurations with equal texts differ by commands over the socket.
`with_servers` fills the slots: HAProxy starts with the file that it returns, so that no request meets a
backend whose servers are still to come.

A backend without directives of its own is *plain*. A configuration has spare plain backends, and `fitted`
uses them for new Services. The maps say which backend a request goes to, so a new plain backend needs no
reload, either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

Entries: TypeAlias = tuple[tuple[str, str], ...]
"""The (key, value) pairs of a map, in order. Neither contains a blank or a control character."""
CertificateEntries: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""A list of certificates (crt-list): each file, and the server names for which it is used."""

LARGEST_WEIGHT = 256
"""The largest weight of a server in HAProxy."""
FEWEST_SLOTS = 4
SLOT = "s"
"""The servers of a backend are named s1, s2, ..."""
SPARE = re.compile(r"spare-(\d+)")
"""The names of spare backends. All other names of backends contain a dot."""
NOWHERE = "0.0.0.0:1"
"""The address of a slot without a server. The slot is in maintenance, so nothing connects to it."""
_TEMPLATE = re.compile(rf"(?m)^    server-template {SLOT} 1-(\d+) {re.escape(NOWHERE)} disabled(.*)\n")
_BACKEND = re.compile(r"(?m)^backend (\S+)\n")


class State(StrEnum):
    """The administrative state of a server. The value is HAProxy's name for it."""

    READY = "ready"
    DRAIN = "drain"
    """Only requests that are bound to it, for example by a cookie, go to it: its pod is about to end."""


class Server(Struct, frozen=True, order=True):
    """One endpoint, as HAProxy uses it."""

    address: str
    """An IPv4 or IPv6 address in canonical form, IPv6 without brackets."""
    port: int
    weight: int = 1
    """0 to `LARGEST_WEIGHT`, relative to the other servers of the backend. No new client goes to weight 0."""
    state: State = State.READY

    @property
    def socket(self) -> str:
        """The address and port, as HAProxy reads them."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Section(Struct, frozen=True):
    """A backend section of the file."""

    slots: int
    """The number of servers that it has room for."""
    directives: tuple[str, ...] = ()
    """Its lines; () for a plain backend."""
    options: str = ""
    """Parameters of its servers, for example `ssl verify none`."""

    @property
    def plain(self) -> bool:
        """Whether a spare backend can stand for it."""
        return not self.directives and not self.options

    def holds(self, desired: Section, slots: int) -> bool:
        """Whether it does for another section: equal directives, and at least this number of slots."""
        return self.rules == desired.rules and self.slots >= slots

    @property
    def rules(self) -> tuple[tuple[str, ...], str]:
        """Everything but the number of slots."""
        return self.directives, self.options

    def text(self, name: str) -> str:
        """Return its lines in the file."""
        rules = "".join(f"    {line}\n" for line in self.directives)
        options = f" {self.options}" if self.options else ""
        servers = (
            f"    server-template {SLOT} 1-{self.slots} {NOWHERE} disabled{options}\n" if self.slots else ""
        )
        return f"backend {name}\n{rules}{servers}"


class Configuration(Struct, frozen=True):
    """Everything that HAProxy reads. Equal configurations have equal bytes."""

    head: str
    """The file up to the backends: global, defaults, user lists and frontends."""
    sections: dict[str, Section]
    """By name, sorted: the backends of the file, in use or not."""
    backends: dict[str, tuple[Server, ...]] = {}
    """The servers of each backend in use, sorted; at most as many as it has slots."""
    maps: dict[str, Entries] = {}
    """By file name. A value is the name of a backend, or a word that the head looks for."""
    certificates: dict[str, bytes] = {}
    """By file name: certificate chain and private key in PEM. Secret: the files have mode 0600."""
    certificate_lists: dict[str, CertificateEntries] = {}
    """By file name."""
    files: dict[str, bytes] = {}
    """Other files by name, for example pages for errors. If one changes, HAProxy has to be reloaded."""
    spares: dict[str, str] = {}
    """The spare backend that stands for a plain backend, by the name of the latter."""

    @property
    def text(self) -> str:
        """The configuration file, with empty slots."""
        return self.head + "".join(f"\n{section.text(name)}" for name, section in self.sections.items())


def slots_for(servers: int) -> int:
    """Return the number of slots of a backend: a power of two, with room for twice as many servers."""
    return max(FEWEST_SLOTS, 1 << (2 * servers - 1).bit_length()) if servers else FEWEST_SLOTS


def with_servers(text: str, backends: Mapping[str, tuple[Server | None, ...]]) -> str:
    """Return the text of a file whose slots have servers, for the start of HAProxy.

    `backends` has the server of each slot, None for an empty one. Missing slots are empty.
    """
    parts = _BACKEND.split(text)
    named = zip(parts[1::2], parts[2::2], strict=True)
    filled = (f"backend {name}\n{_filled(body, backends.get(name, ()))}" for name, body in named)
    return parts[0] + "".join(filled)


def _filled(body: str, servers: tuple[Server | None, ...]) -> str:
    return _TEMPLATE.sub(lambda found: _slots(int(found[1]), servers, found[2]), body, count=1)


def _slots(count: int, servers: tuple[Server | None, ...], options: str) -> str:
    every = [*servers, *[None] * (count - len(servers))]
    return "".join(_slot(f"{SLOT}{number}", each, options) for number, each in enumerate(every, 1))


def _slot(name: str, server: Server | None, options: str) -> str:
    """Return a line. A draining server has weight 0 until the driver sets its state."""
    if server is None:
        return f"    server {name} {NOWHERE} disabled{options}\n"
    weight = 0 if server.state is State.DRAIN else server.weight
    return f"    server {name} {server.socket} weight {weight}{options}\n"


def fitted(desired: Configuration, loaded: Configuration) -> Configuration | None:
    """Return a configuration that does what `desired` does, with the text of `loaded`; None if there is none.

    `loaded` may be fitted, `desired` is not. A backend that `loaded` has under the same name stays there, and
    one in a spare backend stays in it, so that its connections and counters do.
    """
    if (desired.head, desired.files) != (loaded.head, loaded.files):
        return None
    before = {name: loaded.spares.get(name, name) for name in desired.backends}
    places = {name: place for name, place in before.items() if _stays(loaded, place, desired, name)}
    free = [name for name in spare_names(loaded) if name not in places.values()]
    for name in sorted(desired.backends.keys() - places.keys()):
        section = desired.sections[name]
        place = next((each for each in free if loaded.sections[each].holds(section, section.slots)), None)
        if place is None:
            return None
        free.remove(place)
        places[name] = place
    moved = {name: place for name, place in sorted(places.items()) if name != place}
    return _renamed(replace(desired, sections=loaded.sections), moved)


def _stays(loaded: Configuration, place: str, desired: Configuration, name: str) -> bool:
    """Whether a backend can stay where it is: there are enough slots, even without room for more servers."""
    section, servers = desired.sections[name], len(desired.backends[name])
    return place in loaded.sections and loaded.sections[place].holds(section, servers)


def _renamed(desired: Configuration, names: dict[str, str]) -> Configuration:
    """Return it with other names of backends, also in the values of maps."""
    if not names:
        return desired
    backends = {names.get(name, name): servers for name, servers in desired.backends.items()}
    maps = {file: _renamed_values(entries, names) for file, entries in desired.maps.items()}
    return replace(desired, backends=dict(sorted(backends.items())), maps=maps, spares=names)


def _renamed_values(entries: Entries, names: Mapping[str, str]) -> Entries:
    return tuple((key, names.get(value, value)) for key, value in entries)


def spare_names(configuration: Configuration) -> list[str]:
    """Return the spare backends of a configuration, in the order of their numbers."""
    found = filter(None, map(SPARE.fullmatch, configuration.sections))
    return [each[0] for each in sorted(found, key=lambda each: int(each[1]))]
