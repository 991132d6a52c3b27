"""Checks of the applications behind endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address

from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.facts import Listening
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.netlink.core.route import ListeningSocket
from kproxy.model import Address, Protocol, format_address, format_socket, owner_text
from kproxy.problems import enumeration


def on_loopback(objects: Objects, listening: Listening) -> Iterator[Sighting]:
    """An application waits at the right port, but on loopback only."""
    yield from _found(objects, listening, _loopback_only)


def _loopback_only(address: Address, port: int, waiting: list[ListeningSocket]) -> tuple[str, str] | None:
    same = [each for each in waiting if each.port == port]
    if same and not any(accepts(each, address) for each in same) and any(map(_is_loopback, same)):
        where = enumeration([format_socket(each.address, port) for each in same])
        return f"endpoint {format_socket(address, port)} listens on loopback only", f"it listens on {where}"
    return None


def other_port(objects: Objects, listening: Listening) -> Iterator[Sighting]:
    """No application waits at the port of an endpoint."""
    yield from _found(objects, listening, _not_there)


def _not_there(address: Address, port: int, waiting: list[ListeningSocket]) -> tuple[str, str] | None:
    if any(each.port == port and (accepts(each, address) or _is_loopback(each)) for each in waiting):
        return None
    ports = sorted({each.port for each in waiting if accepts(each, address)})
    what = f"nothing listens at endpoint {format_socket(address, port)}"
    return what, f"its ports are {enumeration(list(map(str, ports)))}" if ports else "no socket listens"


_Check = Callable[[Address, int, list[ListeningSocket]], tuple[str, str] | None]


def _found(objects: Objects, listening: Listening, check: _Check) -> Iterator[Sighting]:
    """Apply a check to each endpoint of each Service in question whose sockets are known."""
    done: set[tuple[object, ...]] = set()
    for frontend in objects.snapshot.frontends:
        service, protocol = frontend.owner.service, frontend.protocol
        if not objects.concerns(service) or protocol is Protocol.SCTP:
            continue
        for address, port in frontend.backends.endpoints:
            key = service, protocol, address, port
            if address not in listening.sockets or key in done:
                continue
            done.add(key)
            waiting = [each for each in listening.sockets[address] if each.protocol is protocol]
            if result := check(address, port, waiting):
                yield Sighting(owner_text(service), result[0], (result[1],), sure=False)


def accepts(listener: ListeningSocket, address: Address) -> bool:
    """Whether a socket gets connections to an address. One for all IPv6 addresses also gets those of IPv4."""
    if not any(listener.address):
        return len(listener.address) == 16 or len(address) == 4
    return listener.address in (address, b"\0" * 10 + b"\xff\xff" + address)


def _is_loopback(listener: ListeningSocket) -> bool:
    own = ip_address(listener.address)
    mapped = getattr(own, "ipv4_mapped", None)
    return (mapped or own).is_loopback


def silent(objects: Objects, listening: Listening) -> Iterator[Sighting]:
    """An endpoint does not accept a TCP connection from this node."""
    for (address, port), reason in sorted(listening.failures.items()):
        owners = [
            f.owner.service for f in objects.snapshot.frontends if (address, port) in f.backends.endpoints
        ]
        name = next(each for each in owners if objects.concerns(each))
        what = f"endpoint {format_socket(address, port)} does not accept a connection from this node"
        yield Sighting(owner_text(name), what, (f"{format_address(address)}: {reason}",), sure=False)
