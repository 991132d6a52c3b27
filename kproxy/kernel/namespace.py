"""Run a function in a child process with a new network namespace, which ends with the process.

The function cannot change the network of this process. If it crashes (libnftables may abort), only
the child process ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import TypeVar

from kproxy.problems import HostError, KproxyError, TransactionError

T = TypeVar("T")
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
HINTS = {
    errno.EPERM: "kproxy first loads its rules into a new network namespace. This requires CAP_SYS_ADMIN (in "
    "a container: a privileged container), or a host on which every user can create user namespaces.",
    errno.ENOSPC: "A limit is reached: sysctl user.max_net_namespaces or user.max_user_namespaces.",
    errno.EINVAL: "The kernel needs CONFIG_NET_NS.",
    errno.EAGAIN: "A limit is reached: pids.max of the cgroup, or sysctl kernel.pid_max.",
}


class ChildDied(HostError):
    """The child process crashed while it ran the function."""


def in_fresh_namespace(work: Callable[[], T]) -> T:
    """Run `work` in a child process with a new network namespace. Returns its result, or raises its error.

    Raises HostError if no such namespace can be created. An OSError of `work` becomes a TransactionError
    without errno, since it does not concern the table in use.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        message = f"Cannot start a child process to test kproxy's rules: {error.strerror}."
        raise HostError(message, HINTS[errno.EAGAIN]) from None
    if not child:
        os.close(reader)
        _report(writer, work)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    if not data:
        signum = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        what = f"was killed by {signal.Signals(signum).name}" if signum else "failed"
        message = f"libnftables {what} while it loaded kproxy's rules."
        raise ChildDied(message, "kproxy needs libnftables 1.0.6 or later.")
    result = pickle.loads(data)
    if isinstance(result, BaseException):
        raise result
    return result  # type: ignore[no-any-return]


def _report(writer: int, work: Callable[[], T]) -> None:
    result: T | BaseException
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hide the messages of a library that aborts
        _unshare_network()
        result = work()
    except KproxyError as error:
        result = error
    except OSError as error:
        result = TransactionError(f"The kernel refused kproxy's rules: {error.strerror}.")
    with os.fdopen(writer, "wb") as pipe:
        pickle.dump(result, pipe)


def _unshare_network() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        number = ctypes.get_errno()
        raise HostError(
            f"Cannot create a network namespace: {os.strerror(number)}.", HINTS.get(number, "Run as root.")
        )
