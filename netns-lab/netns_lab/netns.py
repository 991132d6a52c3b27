"""A network namespace: create, enter, remove.

A namespace is a name in /run/netns, as for ``ip netns``. When a thread has entered
one, its sockets, its subprocesses and its writes to /proc/sys/net belong to that
namespace.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from netns_lab import linux

RUN = Path("/run/netns")

Result = TypeVar("Result")


def enter(name: str) -> None:
    """Move the calling thread permanently into a namespace."""
    linux.setns(RUN / name, linux.CLONE_NEWNET)


def inside(name: str, call: Callable[[], Result]) -> Result:
    """Run ``call`` in the namespace, in a separate thread. Returns or raises what ``call`` does."""

    def there() -> Result:
        enter(name)
        return call()

    return linux.in_a_thread(there)


def in_fresh_namespace(call: Callable[[], Result]) -> Result:
    """Run ``call`` in a namespace without a name, in a separate thread. Returns or raises what ``call`` does.

    The namespace ends with the thread, and with the threads and processes that ``call`` started.
    """

    def there() -> Result:
        linux.unshare(linux.CLONE_NEWNET)
        return call()

    return linux.in_a_thread(there)


def create(name: str) -> None:
    """Create a namespace, with its loopback down. Raises FileExistsError if the name exists."""
    # Shared, as `ip netns add` makes it: mounts here propagate to all mount namespaces.
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
    """Remove the name, if it exists. The kernel frees the namespace when no process is in it any more."""
    linux.unmount(RUN / name)
    (RUN / name).unlink(missing_ok=True)
