"""Work in a network namespace that lives as long as it takes: a child process, and nothing to clean up.

What the child breaks is not ours, and what it cannot take (libnftables may abort) ends only the child.
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
    errno.EPERM: "kproxy tries its rules in a namespace of its own first. That takes CAP_SYS_ADMIN (in a "
    "container: a privileged one), or a host that lets everyone make user namespaces.",
    errno.ENOSPC: "The limit is reached: sysctl user.max_net_namespaces, user.max_user_namespaces.",
    errno.EINVAL: "The kernel needs CONFIG_NET_NS.",
    errno.EAGAIN: "The limit is reached: pids.max of its cgroup, or kernel.pid_max.",
}


class ChildDied(HostError):
    """The child process died of what it was given to do."""


def in_fresh_namespace(work: Callable[[], T]) -> T:
    """Run `work` in a child process with a network namespace of its own; its result or its error.

    HostError: no such namespace can be made. An OSError of `work` comes as TransactionError (no errno:
    it says nothing about the table in place).
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    try:
        child = os.fork()
    except OSError as error:
        os.close(reader)
        os.close(writer)
        message = f"No child process can be started to try kproxy's rules: {error.strerror}."
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
        what = f"was ended by {signal.Signals(signum).name}" if signum else "failed"
        raise ChildDied(f"libnftables {what} while it loaded kproxy's rules.", "Is it older than 1.0.6?")
    result = pickle.loads(data)
    if isinstance(result, BaseException):
        raise result
    return result  # type: ignore[no-any-return]


def _report(writer: int, work: Callable[[], T]) -> None:
    result: T | BaseException
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # an aborting library says why on its own account
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
            f"A network namespace cannot be made: {os.strerror(number)}.", HINTS.get(number, "Run as root.")
        )
