"""What fields of several kinds have in common: names, ports, protocols, and how a wrong one is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import TypeVar

from kproxy.decode import wire
from kproxy.model import Address, Family, NamespacedName, Origin, Protocol, parse_ip

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
"""What the API server takes for a name (DNS-1123)."""
FAMILIES = {"IPv4": Family.IPV4, "IPv6": Family.IPV6}


DOTTED = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")
NOT_UNICAST = frozenset((0, 127, 169, *range(224, 240)))
"""First bytes of IPv4 addresses at which a closer look is needed."""


class FieldError(ValueError):
    """A field whose type is right and whose value is not."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


def checked(path: str, check: Callable[[str], T], text: str) -> T:
    """What `check` makes of a text; its ValueError as that of the field."""
    try:
        return check(text)
    except ValueError as error:
        raise FieldError(path, str(error)) from None


def port_number(path: str, number: int) -> int:
    """A port that packets can have."""
    if not 1 <= number <= 65535:
        raise FieldError(path, f"{number} is not a port (1-65535)")
    return number


def protocol(path: str, text: str | None) -> Protocol:
    """A protocol that a service port can have; TCP if absent."""
    try:
        return Protocol[text or "TCP"]
    except KeyError:
        raise FieldError(path, f"{text!r} is not one of TCP, UDP, SCTP") from None


def object_name(metadata: wire.Metadata) -> NamespacedName:
    """The object's identity; namespace default if absent."""
    if not metadata.name:
        raise FieldError("metadata.name", "is missing")
    name = NamespacedName(share(metadata.namespace or "default"), metadata.name)
    for path, text, limit in (("metadata.namespace", name.namespace, 63), ("metadata.name", name.name, 253)):
        if not SUBDOMAIN.fullmatch(text) or len(text) > limit:
            raise FieldError(path, f"{text!r} is not a name: lower-case letters, digits, - and .")
    return name


def origin(source: str, metadata: wire.Metadata) -> Origin:
    """Where it came from."""
    return Origin(source, share(metadata.creation_timestamp or ""))


@lru_cache(4096)
def _shared(value: Hashable) -> Hashable:
    return value


def share(value: H) -> H:
    """An equal value that others hold as well, if there is one: many objects say the same."""
    return _shared(value)  # type: ignore[return-value]


def unicast_address(path: str, text: str) -> Address:
    """An address that packets of any host can be sent to; the API server refuses the others, too."""
    if packed := _plain(text):
        return packed
    ip = checked(path, parse_ip, text)
    if ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast:
        raise FieldError(path, f"{text} will not do: it is loopback, link-local, multicast or unspecified")
    return ip.packed


def _plain(text: str) -> Address | None:
    """Most addresses, ten times as fast as `ipaddress` does it; None: look closer."""
    found = DOTTED.fullmatch(text)
    if not found:
        return None
    a, b, c, d = map(int, found.groups())
    return bytes((a, b, c, d)) if a not in NOT_UNICAST and max(a, b, c, d) < 256 else None
