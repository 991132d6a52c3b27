"""Looks at the applications behind endpoints: which sockets wait in the pods, and whether endpoints answer.

The sockets are read, without a packet. Only if the command names one Service, a TCP connection is opened to
its endpoints whose sockets cannot be read, for example those on other nodes, and closed immediately.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Mapping

from kproxy.doctor.core.facts import Listening
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.host import socket_family
from kproxy.kernel.pod_namespaces import listeners
from kproxy.model import Address, Protocol, format_address

CONNECT_SECONDS = 1.0
MOST_CONNECTIONS = 64
"""The maximum number of endpoints to connect to."""
Socket = tuple[Address, int]


def read_listening(objects: Objects) -> Listening:
    """Return the sockets in the pods of the Services in question, and how other endpoints answer."""
    endpoints = _endpoints(objects)
    found = listeners({address for (address, _), _ in endpoints})
    if objects.only is None:
        return Listening(found, {})
    unknown = {at for at, protocol in endpoints if at[0] not in found and protocol is Protocol.TCP}
    return Listening(found, _failures(sorted(unknown)[:MOST_CONNECTIONS]))


def _endpoints(objects: Objects) -> set[tuple[Socket, Protocol]]:
    return {
        (at, frontend.protocol)
        for frontend in objects.snapshot.frontends
        if objects.concerns(frontend.owner.service)
        for at in frontend.backends.endpoints
    }


def _failures(endpoints: list[Socket]) -> Mapping[Socket, str]:
    """Connect to all endpoints at once. Returns why connections failed, by endpoint."""
    errors: dict[Socket, int] = {}
    waiting: dict[int, tuple[Socket, socket.socket]] = {}
    poll, end = select.poll(), time.monotonic() + CONNECT_SECONDS
    for at in endpoints:
        client = socket.socket(socket_family(at[0]))
        client.setblocking(False)
        waiting[client.fileno()] = at, client
        poll.register(client, select.POLLOUT)
        errors[at] = client.connect_ex((format_address(at[0]), at[1]))
    pending = set(waiting)
    while pending and (left := end - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            at, client = waiting[descriptor]
            errors[at] = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            poll.unregister(descriptor)
            pending.discard(descriptor)
    for _, client in waiting.values():
        client.close()
    return {at: _reason(number) for at, number in errors.items() if number}


def _reason(number: int) -> str:
    return "no answer" if number == errno.EINPROGRESS else os.strerror(number)
