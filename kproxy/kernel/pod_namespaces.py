"""The network namespaces of pods, which are connected to this one: waiting sockets, and files of resolvers.

The namespaces are those of all processes, and those that `ip netns` names. The kernel gives a namespace a
number (nsid) as soon as an interface here has its other end there, for example a veth of a pod. Namespaces
without a number are not entered: they belong to other networks, in which the same addresses may occur.

A thread that enters a namespace stays there, so it is a thread of its own, which ends afterwards.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from threading import Thread
from typing import TypeVar

from kproxy.dns.core.resolv import ResolvConf, parse
from kproxy.kernel.host import RESOLV_CONF_BYTES
from kproxy.kernel.netlink.core.codec import attribute, attributes, messages
from kproxy.kernel.netlink.core.constants import (
    NETLINK_ROUTE,
    NETNSA_FD,
    NETNSA_NSID,
    NLM_F_REQUEST,
    NLMSG_HDRLEN,
    RTM_GETNSID,
    RTM_NEWNSID,
)
from kproxy.kernel.netlink.core.route import ListeningSocket
from kproxy.kernel.netlink.route import host_addresses, links
from kproxy.model import Address, Protocol
from kproxy.problems import HostError

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
NAMED = (Path("/run/netns"), Path("/run/docker/netns"))
FILES = {"tcp": Protocol.TCP, "tcp6": Protocol.TCP, "udp": Protocol.UDP, "udp6": Protocol.UDP}
"""The lists of sockets in /proc/thread-self/net."""
LISTENING = {Protocol.TCP: "0A", Protocol.UDP: "07"}
"""The states of sockets that wait: TCP_LISTEN, and an unconnected UDP socket (net/tcp_states.h)."""
MOST_PROCESSES = 20_000
MOST_BYTES = 1 << 20
"""The maximum number of bytes of a list of sockets to read."""


def listeners(wanted: Collection[Address]) -> dict[Address, tuple[ListeningSocket, ...]]:
    """Return the waiting sockets in the namespaces that have these addresses, by address.

    Addresses whose namespace is unknown are missing. Raises HostError unless the process runs as root, and
    OSError without the right to enter namespaces.
    """
    return _look(wanted, lambda _: own_listeners())


def resolv_confs(wanted: Collection[Address]) -> dict[Address, ResolvConf]:
    """Return the resolv.conf of the pods that have these addresses, by address.

    Pods without a process, or whose file is not an ordinary one, are missing. Raises as `listeners` does.
    """
    found = _look(wanted, lambda process: process and _resolv_conf(process))
    return {address: conf for address, conf in found.items() if conf}


def _look(wanted: Collection[Address], read: Callable[[Path | None], T]) -> dict[Address, T]:
    """Call `read` in each namespace that has some of these addresses, with a process in it (/proc/PID)."""
    if os.geteuid() != 0:
        raise HostError("Only root can look into pods.", "Run it with sudo.")
    found: dict[Address, T] = {}
    failures: list[OSError] = []

    def visit() -> None:
        try:
            for process in _visited():
                if own := {one.address for one in host_addresses()}.intersection(wanted):
                    found.update(dict.fromkeys(own, read(process)))
        except OSError as error:
            failures.append(error)

    thread = Thread(target=visit, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return found


def _visited() -> Iterator[Path | None]:
    """Enter one namespace after the other. Yields a process in each; None if there is none, or it is here."""
    links()  # the kernel gives numbers to the namespaces of the other ends
    own = Path("/proc/thread-self/ns/net").stat().st_ino
    yield None
    with _namespaces(own) as namespaces:
        for descriptor, process in namespaces:
            _enter(descriptor)
            yield process


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")


@contextmanager
def _namespaces(own: int) -> Iterator[list[tuple[int, Path | None]]]:
    """Open the namespaces that are connected to this one. Returns each with a process in it, if any."""
    paths: dict[int, Path] = {}
    processes: dict[int, Path] = {}
    for path in _paths():
        with suppress(OSError):  # it has ended, or belongs to another container
            inode = path.stat().st_ino
            paths.setdefault(inode, path)
            if path.is_relative_to("/proc"):
                processes.setdefault(inode, path.parents[1])
    opened: dict[int, int] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as route:
            for inode, path in ((inode, path) for inode, path in paths.items() if inode != own):
                with suppress(OSError):
                    opened[inode] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    if _number(route, opened[inode]) < 0:
                        os.close(opened.pop(inode))
        yield [(descriptor, processes.get(inode)) for inode, descriptor in opened.items()]
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


def _paths() -> Iterator[Path]:
    for folder in NAMED:
        with suppress(FileNotFoundError):
            yield from folder.iterdir()
    processes = [path for path in Path("/proc").iterdir() if path.name.isdigit()]
    yield from (path / "ns/net" for path in processes[:MOST_PROCESSES])


def _number(route: socket.socket, descriptor: int) -> int:
    """Return the kernel's number of a namespace; a negative one if it has none."""
    body = b"\0" * 4 + attribute(NETNSA_FD, struct.pack("=I", descriptor))
    route.send(struct.pack("=IHHII", NLMSG_HDRLEN + len(body), RTM_GETNSID, NLM_F_REQUEST, 1, 0) + body)
    for reply in messages(memoryview(route.recv(1 << 12))):
        if reply.kind == RTM_NEWNSID:
            found = dict(attributes(reply.content[4:]))
            return int(struct.unpack("=i", found[NETNSA_NSID])[0])
    return -1


def _resolv_conf(process: Path) -> ResolvConf | None:
    """Read the file of the container that a process is in, if it is an ordinary file.

    The container chooses the file. A symbolic link in it would lead to a file of this host.
    """
    folder = os.open(process / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in ("etc", "resolv.conf"):
            flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            found = os.open(name, flags, dir_fd=folder)
            os.close(folder)
            folder = found
        is_file = S_ISREG(os.fstat(folder).st_mode)
        return parse(os.read(folder, RESOLV_CONF_BYTES).decode(errors="replace")) if is_file else None
    except OSError:
        return None
    finally:
        os.close(folder)


def own_listeners() -> tuple[ListeningSocket, ...]:
    """Return the waiting sockets in the namespace of this thread. Raises OSError without /proc."""
    Path("/proc/thread-self/net").stat()
    return tuple(_listeners())


def _listeners() -> Iterator[ListeningSocket]:
    for name, protocol in FILES.items():
        with suppress(OSError), Path(f"/proc/thread-self/net/{name}").open() as file:
            for line in file.read(MOST_BYTES).splitlines()[1:]:
                words = line.split()
                if len(words) > 3 and words[3] == LISTENING[protocol]:
                    address, _, port = words[1].partition(":")
                    yield ListeningSocket(protocol, _address(address), int(port, 16))


def _address(text: str) -> Address:
    """Parse an address of /proc/net: words of 32 bits in host order."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    return b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
