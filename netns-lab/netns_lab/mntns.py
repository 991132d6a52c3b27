"""One pod's mount namespace: the machine's files, and a /var that is the pod's alone.

It is a file, a mount of the namespace, which ``nsenter --mount=FILE`` takes,
too. /var is a tmpfs within: it begins empty but for what programs look for,
and goes with the namespace. What is mounted on the machine later shows up in
the pod, nothing that is mounted in the pod shows up on the machine. The names
of network namespaces are not there, as in a container: they would be kept from
going away.
"""

import errno
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from netns_lab import linux, netns

VAR = Path("/var")
SIZE = "64m"


def create(path: Path) -> None:
    """Make a namespace; FileExistsError if there is one already."""
    # a mount namespace cannot be mounted where it would see itself, so what is mounted here must not spread
    linux.make_mount_point(path.parent, linux.MS_PRIVATE)
    path.touch(mode=0o444, exist_ok=False)
    try:
        _mount(path)
    except BaseException:
        remove(path)
        raise


def _mount(path: Path) -> None:
    """Make a namespace and mount it.

    The kernel takes only one whose id is higher than that of the namespace that we are in, so that there are
    no circles. Newer ones (6.18) give each CPU a range of ids: if ours is not the machine's first
    namespace, as in a container, only some CPUs make higher ones, among them the one that made ours.
    """
    refused: OSError | None = None
    for cpus in (None, *({cpu} for cpu in sorted(os.sched_getaffinity(0)))):
        fd = linux.in_a_thread(partial(_make, cpus))
        try:
            return linux.mount(f"/proc/self/fd/{fd}", path, linux.MS_BIND)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            refused = error
        finally:
            os.close(fd)
    assert refused is not None
    raise refused


def _make(cpus: set[int] | None) -> int:
    """A descriptor of the namespace that the calling thread has from now on, made on one of these CPUs."""
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", Path("/"), linux.MS_SLAVE | linux.MS_REC)
    linux.unmount(netns.RUN)
    linux.mount("tmpfs", VAR, 0, "tmpfs", f"mode=755,size={SIZE}")
    (VAR / "run").symlink_to("/run")
    (VAR / "tmp").mkdir()
    (VAR / "tmp").chmod(0o1777)
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def enter(path: Path) -> None:
    """Move the calling thread into a namespace, for good; into the same directory, if it is there."""
    directory = Path.cwd()
    linux.unshare(linux.CLONE_FS)
    linux.setns(path, linux.CLONE_NEWNS)
    with suppress(OSError):
        os.chdir(directory)


def remove(path: Path) -> None:
    """Take the file away, if it is there; the kernel frees the namespace when nothing is in it any more."""
    linux.unmount(path)
    path.unlink(missing_ok=True)


def remove_all(directory: Path) -> None:
    """Take away all that ``create`` made in a directory, and the directory, if it is there."""
    linux.unmount(directory)
    for path in directory.glob("*"):
        path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        directory.rmdir()
