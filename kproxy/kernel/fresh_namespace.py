"""A socket to netfilter in a new network namespace, which ends with the socket.

A thread that changes its namespace cannot always return, so another thread creates the namespace, and ends.
Where this needs a user namespace, too, only a process with one thread can do it. So a child process creates
both, sends the socket to this process, and ends, which takes six times as long. The child must not run after
threads have started, because it would inherit locks that other threads hold.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from contextlib import suppress
from threading import Thread

from kproxy.kernel.netlink.core.constants import NETLINK_NETFILTER
from kproxy.problems import HostError

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
HINTS = {
    errno.EPERM: "kproxy first loads its rules into a new network namespace. This requires CAP_SYS_ADMIN (in "
    "a container: a privileged container), or a host on which every user can create user namespaces.",
    errno.ENOSPC: "A limit is reached: sysctl user.max_net_namespaces or user.max_user_namespaces.",
    errno.EINVAL: "The kernel needs CONFIG_NET_NS.",
    errno.EAGAIN: "A limit is reached: pids.max of the cgroup, or sysctl kernel.pid_max.",
}


def netfilter_socket() -> socket.socket:
    """Return a socket to netfilter in a new network namespace.

    Raises HostError if the namespace cannot be created, and OSError if the kernel has no netfilter.
    """
    found: list[socket.socket] = []

    def make() -> None:
        with suppress(OSError):
            found.append(_new(CLONE_NEWNET))

    with suppress(RuntimeError):  # the limit of processes is reached
        thread = Thread(target=make)
        thread.start()
        thread.join()
    return found[0] if found else _from_child()


def _from_child() -> socket.socket:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = _fork()
            if not child:
                _send_socket(theirs)
                os._exit(0)
        data, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
        os.waitpid(child, 0)
    if descriptors:
        return socket.socket(fileno=descriptors[0])
    number = int(data or errno.EPERM)
    message = f"Cannot create a network namespace: {os.strerror(number)}."
    raise HostError(message, HINTS.get(number, "Run as root."))


def _fork() -> int:
    try:
        return os.fork()
    except OSError as error:
        message = f"Cannot start a child process to create a network namespace: {error.strerror}."
        raise HostError(message, HINTS[errno.EAGAIN]) from None


def _send_socket(connection: socket.socket) -> None:
    """Send a socket in a new namespace, or the number of the error as text."""
    try:
        with _new(CLONE_NEWUSER | CLONE_NEWNET) as made:
            socket.send_fds(connection, [b"0"], [made.fileno()])
    except OSError as error:
        connection.sendall(str(error.errno).encode())


def _new(namespaces: int) -> socket.socket:
    """Return a socket to netfilter in new namespaces, which the calling thread enters."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(namespaces):
        raise OSError(ctypes.get_errno(), "unshare")
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
