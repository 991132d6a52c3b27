"""What a running HAProxy has, and the commands that make it have something else.

`Running` is read back from HAProxy, so one function plans each change: of an event, after a restart of
kproxy, and of what another program changed. If commands cannot make a change, HAProxy has to be reloaded.

The order of a plan is such that each request finds its way: certificates, new servers, maps, removed servers.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha1
from typing import NamedTuple, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from kproxy.gateway.core.configuration import SLOT, CertificateEntries, Configuration, Entries, Server, State

PAYLOAD = 8000
"""The size of a payload in bytes. HAProxy's buffers have 16 KiB."""
Slots: TypeAlias = tuple[Server | None, ...]
"""The server of each slot of a backend; None for an empty one."""
_ADDRESS_SET = r"(?:(?:IP changed|port changed|no need to change|nothing changed)[^\n]*\s*)?"
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class Command(NamedTuple):
    """Commands in one line, with their payload, and the expected reply."""

    text: str
    reply: str = ""
    """A regular expression for the whole reply, without blanks around it."""

    @property
    def name(self) -> str:
        """The first line, for messages: a payload may be secret."""
        return self.text.partition("\n")[0]


class Running(Struct, frozen=True):
    """What a HAProxy process has."""

    backends: dict[str, Slots] = {}
    """All backends of its file that have slots."""
    maps: dict[str, Entries] = {}
    certificates: dict[str, str] = {}
    """The fingerprint of each certificate, by file name."""
    certificate_lists: dict[str, CertificateEntries] = {}


class Plan(Struct, frozen=True):
    """Commands in order. `maps` are replaced between `before` and `after`."""

    before: tuple[Command, ...]
    maps: dict[str, Entries]
    after: tuple[Command, ...]
    swept: tuple[str, ...]
    """The certificate lists from which entries are deleted, by their line (`unwanted_lines`)."""
    last: tuple[Command, ...]
    result: Running
    """What HAProxy has then."""

    @property
    def empty(self) -> bool:
        """Whether HAProxy has everything already."""
        return not (self.before or self.maps or self.after or self.swept or self.last)


def started(desired: Configuration) -> Running:
    """Return what HAProxy has after a start with these files."""
    return _running(
        desired, {name: _started(desired, name) for name, each in desired.sections.items() if each.slots}
    )


def _started(desired: Configuration, name: str) -> Slots:
    """Return the slots as in the file, where a draining server has weight 0 instead."""
    servers = tuple(
        replace(each, weight=0, state=State.READY) if each.state is State.DRAIN else each
        for each in desired.backends.get(name, ())
    )
    return (*servers, *[None] * (desired.sections[name].slots - len(servers)))


def _running(desired: Configuration, backends: dict[str, Slots]) -> Running:
    certificates = {name: fingerprint(pem) for name, pem in desired.certificates.items()}
    return Running(backends, desired.maps, certificates, desired.certificate_lists)


def with_servers_of(loaded: Configuration, desired: Configuration) -> Configuration:
    """Return a configuration with the servers of another one, as far as it has these backends and room."""
    places = {loaded.spares.get(name, name): servers for name, servers in desired.backends.items()}
    backends = {
        place: servers
        if len(servers := places.get(place, before)) <= loaded.sections[place].slots
        else before
        for place, before in loaded.backends.items()
    }
    return replace(loaded, backends=backends)


def plan(running: Running, desired: Configuration) -> Plan | None:
    """Return the way to `desired`, whose file is that of the process. None if only a reload leads there."""
    backends = {
        name: placed(slots, desired.backends.get(name, ())) for name, slots in running.backends.items()
    }
    if any(slots is None for slots in backends.values()) or not _has_all(running, desired):
        return None
    result = _running(desired, {name: slots for name, slots in backends.items() if slots is not None})
    if (certificates := _certificate_commands(running, desired, result)) is None:
        return None
    filled, emptied = _server_commands(running.backends, result.backends)
    return Plan(
        (*certificates, *_list_commands(running, result), *filled),
        {file: entries for file, entries in desired.maps.items() if running.maps[file] != entries},
        tuple(emptied),
        tuple(_lists_to_sweep(running, result)),
        tuple(
            Command(f"del ssl cert {name}", rf"Certificate '{re.escape(name)}' deleted!")
            for name in running.certificates
            if name not in result.certificates
        ),
        result,
    )


def _has_all(running: Running, desired: Configuration) -> bool:
    """Whether it has all backends, maps and lists. Only a reload makes new ones."""
    with_servers = {name for name, servers in desired.backends.items() if servers}
    return (
        with_servers <= running.backends.keys()
        and desired.maps.keys() <= running.maps.keys()
        and desired.certificate_lists.keys() <= running.certificate_lists.keys()
    )


# --- servers ---


def placed(slots: Slots, servers: Iterable[Server]) -> Slots | None:
    """Return the slots with these servers. A server stays in its slot; None if there are too few slots."""
    new = {(server.address, server.port): server for server in servers}
    kept = [new.pop((each.address, each.port), None) if each else None for each in slots]
    empty = [number for number, each in enumerate(slots) if each is None]
    freed = [number for number, each in enumerate(slots) if each is not None and kept[number] is None]
    if len(new) > len(empty) + len(freed):
        return None
    for number, server in zip((*empty, *freed), new.values(), strict=False):
        kept[number] = server
    return tuple(kept)


def _server_commands(
    before: Mapping[str, Slots], after: Mapping[str, Slots]
) -> tuple[list[Command], list[Command]]:
    """Return the commands that fill or change slots, and those that empty some."""
    filled: list[Command] = []
    emptied: list[Command] = []
    for name, slots in after.items():
        if slots == before[name]:
            continue
        for number, (old, new) in enumerate(zip(before[name], slots, strict=True), 1):
            if old != new:
                command = _slot_command(f"{name}/{SLOT}{number}", old, new)
                (emptied if new is None else filled).append(command)
    return filled, emptied


def _slot_command(server: str, old: Server | None, new: Server | None) -> Command:
    return Command(";".join(f"set server {server} {each}" for each in _changes(old, new)), _ADDRESS_SET)


def _changes(old: Server | None, new: Server | None) -> Iterator[str]:
    """Yield what to set. A slot gets another address only in maintenance, before requests go to it."""
    moved = old and new and (old.address, old.port) != (new.address, new.port)
    if new is None or moved:
        yield "state maint"
    if new is None:
        return
    if old is None or moved:
        yield f"addr {new.address} port {new.port}"
    if old is None or moved or old.weight != new.weight:
        yield f"weight {new.weight}"
    if old is None or moved or old.state != new.state:
        yield f"state {new.state}"


# --- maps ---


def map_commands(file: str, version: int, entries: Entries) -> Iterator[Command]:
    """Yield the commands that add entries to a version of a map."""
    for lines in _chunks(f"{key} {value}\n" for key, value in entries):
        yield Command(f"add map @{version} {file} <<\n{lines}")


def _chunks(lines: Iterable[str]) -> Iterator[str]:
    chunk = ""
    for line in lines:
        if chunk and len(chunk) + len(line) > PAYLOAD:
            yield chunk
            chunk = ""
        chunk += line
    if chunk:
        yield chunk


# --- certificates ---


def fingerprint(pem: bytes) -> str:
    """Return the SHA-1 of the first certificate in hexadecimal digits, as HAProxy shows it; "" if none."""
    _, begun, rest = pem.partition(_BEGIN)
    leaf, ended, _ = rest.partition(_END)
    return sha1(a2b_base64(leaf), usedforsecurity=False).hexdigest().upper() if begun and ended else ""


def _certificate_commands(running: Running, desired: Configuration, result: Running) -> list[Command] | None:
    changed = {name for name, each in result.certificates.items() if running.certificates.get(name) != each}
    if any(len(desired.certificates[name]) > PAYLOAD for name in changed):
        return None
    return [
        command
        for name in sorted(changed)
        for command in _new_certificate(name, desired.certificates[name], name not in running.certificates)
    ]


def _new_certificate(name: str, pem: bytes, new: bool) -> Iterator[Command]:
    if new:
        yield Command(f"new ssl cert {name}", r"New empty certificate store '.*'!")
    text = "".join(f"{line}\n" for line in pem.decode("ascii", "replace").splitlines() if line.strip())
    yield Command(f"set ssl cert {name} <<\n{text}", r"Transaction (?:created|updated) for certificate .*!")
    yield Command(f"commit ssl cert {name}", r"Committing .*\n(?s:.*)Success!")


def _list_commands(running: Running, result: Running) -> Iterator[Command]:
    for file, entries in result.certificate_lists.items():
        for entry in entries:
            if entry not in running.certificate_lists[file]:
                line = certificate_line(*entry)
                yield Command(
                    f"add ssl crt-list {file} <<\n{line}\n", r"Inserting certificate .*\n(?s:.*)Success!"
                )


def certificate_line(certificate: str, hosts: tuple[str, ...]) -> str:
    """Return a line of a certificate list."""
    return " ".join((certificate, *hosts))


def _lists_to_sweep(running: Running, result: Running) -> Iterator[str]:
    for file, entries in result.certificate_lists.items():
        if not set(running.certificate_lists[file]) <= set(entries):
            yield file


def unwanted_lines(
    listed: Iterable[tuple[int, tuple[str, tuple[str, ...]]]], desired: CertificateEntries
) -> Iterator[str]:
    """Yield `CERTIFICATE:LINE` of each listed entry that is not desired, and of repeated ones."""
    left = set(desired)
    for line, entry in listed:
        if entry in left:
            left.remove(entry)
        else:
            yield f"{entry[0]}:{line}"
