"""One network namespace: make it, enter it, remove it.

A namespace is a name in /run/netns, as ``ip netns`` has it. Sockets,
subprocesses and writes to /proc/sys/net made by a thread that has entered one
belong to it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from netns_lab import linux

RUN = Path("/run/netns")

Result = TypeVar("Result")


def enter(name: str) -> None:
    """Move the calling thread into a namespace, for good."""
    linux.setns(RUN / name, linux.CLONE_NEWNET)


def inside(name: str, call: Callable[[], Result]) -> Result:
    """What ``call`` returns or raises, run by a thread of its own in the namespace."""

    def there() -> Result:
        enter(name)
        return call()

    return linux.in_a_thread(there)


def create(name: str) -> None:
    """Make a namespace with its loopback down; FileExistsError if there is one of that name."""
    # shared, as `ip netns add` makes it, so that what is mounted here reaches all mount namespaces
    linux.make_mount_point(RUN, linux.MS_SHARED | linux.MS_REC)
    path = RUN / name
    path.touch(mode=0o444, exist_ok=False)

    def make() -> None:
        linux.unshare(linux.CLONE_NEWNET)
        linux.mount("/proc/thread-self/ns/net", path, linux.MS_BIND)

    try:
        linux.in_a_thread(make)
    except BaseException:
        remove(name)
        raise


def remove(name: str) -> None:
    """Take the name away, if it is there; the kernel frees the namespace when nothing is in it any more."""
    linux.unmount(RUN / name)
    (RUN / name).unlink(missing_ok=True)
