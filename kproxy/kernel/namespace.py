"""A socket to netfilter in a new network namespace, which ends with the socket.

A process that changes its namespace cannot always return, so a child process creates the namespace, sends the
socket to this process, and ends. The child must not run after threads have started, because it would inherit
locks that other threads hold.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket

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
        _unshare_network()
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as made:
            socket.send_fds(connection, [b"0"], [made.fileno()])
    except OSError as error:
        connection.sendall(str(error.errno).encode())


def _unshare_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
