"""Checks of fields that several kinds have: names, ports, protocols, addresses.

A `FieldError` concerns the whole object, which is left out. Some objects can be used without the part that is
wrong, and some values that the API server refuses today are in old objects: `Notes` collects warnings about
these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import lru_cache
from typing import TypeGuard, TypeVar, cast

import msgspec

from kproxy.decode import wire
from kproxy.limits import OBJECT_NOTES
from kproxy.model import (
    Address,
    Annotations,
    Family,
    NamespacedName,
    Network,
    Origin,
    Protocol,
    read_ip,
    read_network,
)

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""Names that the API server accepts (RFC 1123, DNS subdomain)."""
SUBDOMAIN_RULE = "lower-case letters, digits, - and ., with a letter or digit first and last"
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_RULE = "at most 63 lower-case letters, digits and -, with a letter or digit first and last"
FAMILIES = {"IPv4": Family.IPV4, "IPv6": Family.IPV6}
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""kubectl's copy of the manifest: as large as the object, and not shown by kubectl itself."""
OCTETS = {str(number): bytes([number]) for number in range(256)}
NOT_PLAIN = frozenset((0, 127, 169, *range(224, 256)))
"""First bytes of IPv4 addresses that may be loopback, link-local, multicast, reserved or unspecified."""
BROADCAST = b"\xff" * 4
SHARED_TEXT = 253
"""The longest text that objects share: a name has at most so many characters."""
SHARED_SIZE, SHORT = 2000, 60
"""The largest value that objects share, and the size of a value of a few bytes. About one for each byte."""


class FieldError(ValueError):
    """A field has the right type, but an invalid value. `path` names the field."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Notes:
    """Warnings about an object that is used: (path, message) each."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, str]] = []
        """What kube-proxy ignores or reads in its own way, as kproxy does."""
        self.left_out: list[tuple[str, str]] = []
        """Invalid parts, without which the object is used."""
        self.more = 0
        """How many others there are of both."""

    def warn(self, path: str, message: str) -> None:
        """Add a warning."""
        self._add(self.warnings, path, message)

    def leave_out(self, error: FieldError) -> None:
        """Add an invalid part."""
        self._add(self.left_out, error.path, str(error))

    def _add(self, notes: list[tuple[str, str]], path: str, message: str) -> None:
        if len(notes) < OBJECT_NOTES:
            notes.append((path, message))
        else:
            self.more += 1


def checked(path: str, check: Callable[[str], T], text: str) -> T:
    """Return `check(text)`. Its ValueError becomes a FieldError."""
    try:
        return check(text)
    except ValueError as error:
        raise FieldError(path, str(error)) from None


def port_number(path: str, number: int) -> int:
    """Check a port number."""
    if not 1 <= number <= 65535:
        raise FieldError(path, f"{number} is not a port (1-65535)")
    return number


def protocol(path: str, text: str | None) -> Protocol:
    """Parse the protocol of a service port. The default is TCP."""
    try:
        return Protocol[text or "TCP"]
    except KeyError:
        raise FieldError(path, f"{text!r} is not one of TCP, UDP, SCTP") from None


def object_name(metadata: wire.Metadata) -> NamespacedName:
    """Return the object's identity. The default namespace is `default`."""
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    return _checked_name(metadata.namespace or "default", metadata.name)


@lru_cache(4096)
def _checked_name(namespace: str, name: str) -> NamespacedName:
    """Check a name. Cached, because each object's is asked for several times."""
    namespace = _checked_namespace(namespace)
    _check_name("metadata.name", name, 253)
    return NamespacedName(namespace, name)


@lru_cache(4096)
def _checked_namespace(text: str) -> str:
    """Check the name of a namespace. Returns the same text for all objects of the namespace."""
    _check_name("metadata.namespace", text, 63)
    return text


def _check_name(path: str, text: str, limit: int) -> None:
    if not SUBDOMAIN.fullmatch(text) or len(text) > limit:
        raise FieldError(path, f"{text!r} is not a DNS name: at most {limit} {SUBDOMAIN_RULE}")


def is_label(value: object) -> TypeGuard[str]:
    """Whether a Service or a namespace can have a value as its name."""
    return isinstance(value, str) and LABEL.fullmatch(value) is not None


def node_name(text: str | None) -> str:
    """Return the name of a node in lower case, as --node-name is; "" if it is absent."""
    if not text:
        return ""
    return _lower(text) if len(text) <= SHARED_TEXT else text.lower()


@lru_cache(4096)
def _lower(text: str) -> str:
    return text.lower()


def origin(source: str, metadata: wire.Metadata) -> Origin:
    """Return the file and the creation time of an object."""
    created = metadata.creation_timestamp or ""
    return _origin(source, created) if len(created) <= SHARED_TEXT else Origin(source, created)


@lru_cache(4096)
def _origin(source: str, created: str) -> Origin:
    return Origin(source, created)


@lru_cache(4096)
def _shared(value: Hashable) -> Hashable:
    return value


def share(value: H) -> H:
    """Return an equal value that is already in memory, if there is one. Many objects have equal values.

    A long one is not shared, because the last 4,096 shared values stay in memory longer than their objects.
    """
    return _shared(value) if _size(value) <= SHARED_SIZE else value  # type: ignore[return-value]


def _size(value: object) -> int:
    """Return the size of a text, or of a tuple with its items. An item of another type counts as short."""
    if isinstance(value, str):
        return SHORT + len(value)
    return SHORT + sum(map(_size, value)) if isinstance(value, tuple) else SHORT


def annotations_text(metadata: wire.Metadata) -> Annotations:
    """Return the annotations of an object, sorted, without kubectl's copy of the manifest."""
    found = metadata.annotations
    if not found:
        return ""
    shown = {key: found[key] or "" for key in sorted(found) if key != LAST_APPLIED}
    return share(msgspec.json.encode(shown).decode()) if shown else ""


def plain_address(text: str) -> Address | None:
    """Pack an IPv4 address that an endpoint may have, much faster than `ipaddress`. None for other texts."""
    network, _, host = text.rpartition(".")
    try:
        return _plain_network(network) + OCTETS[host]
    except (ValueError, KeyError):
        return None


@lru_cache(4096)
def _plain_network(text: str) -> bytes:
    """Pack the first three numbers of an address. Cached, because the pods of a node have mostly the same."""
    a, b, c = text.split(".", 3)
    packed = OCTETS[a] + OCTETS[b] + OCTETS[c]
    if packed[0] in NOT_PLAIN:
        raise ValueError
    return packed


def unicast_address(path: str, text: str, notes: Notes) -> Address:
    """Pack an address. As in the API server, special addresses are not allowed."""
    if packed := plain_address(text):
        return packed
    ip = checked(path, read_ip, text)
    if ip.version == 4 and str(ip) != text:
        notes.warn(path, f"non-standard address {text}: read as {ip}")
    for kind in ("loopback", "link_local", "multicast", "unspecified"):
        if getattr(ip, f"is_{kind}"):
            raise FieldError(path, f"{text} is not allowed: {kind.replace('_', '-')} address")
    if ip.packed == BROADCAST:
        raise FieldError(path, f"{text} is not allowed: broadcast address")
    return ip.packed


def endpoint_address(path: str, text: str, notes: Notes) -> Address:
    """Pack the address of an endpoint. No host has one of 0.0.0.0/8 or 240.0.0.0/4."""
    packed = unicast_address(path, text, notes)
    if len(packed) == 4 and not 0 < packed[0] < 240:
        raise FieldError(path, f"{text} is not allowed: reserved address")
    return packed


def usable(
    parse: Callable[[str, str, Notes], T], texts: Iterable[tuple[str, str]], notes: Notes
) -> Iterator[T]:
    """Yield the value of each (path, text) that `parse` accepts. The others are left out."""
    for path, text in texts:
        try:
            yield parse(path, text, notes)
        except FieldError as error:
            notes.leave_out(error)


def network(path: str, text: str, notes: Notes) -> Network:
    """Parse a CIDR. Bits after the prefix are ignored, as in Kubernetes."""
    found, address = checked(path, read_network, text), text.strip().partition("/")[0]
    ip = read_ip(address)
    if ip != found.network_address or (ip.version == 4 and str(ip) != address):
        notes.warn(path, f"non-standard CIDR {text.strip()}: read as {found}")
    return found


def text_map(path: str, values: dict[str, str | None] | None, notes: Notes) -> dict[str, str]:
    """Return a map of labels or annotations. A value that is null is read as "", as in the API server."""
    if not values or None not in values.values():
        return cast("dict[str, str]", values or {})
    for key in [key for key, value in values.items() if value is None]:
        notes.warn(f"{path}[{key}]", 'is null: read as ""')
    return {key: value or "" for key, value in values.items()}
