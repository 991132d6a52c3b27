"""The mount namespace of a pod: the machine's files, and a separate /var.

It is a file, on which the namespace is mounted; ``nsenter --mount=FILE`` accepts
it. Its /var is a tmpfs, which contains only what programs expect there, and ends
with the namespace. It can have its own /etc/resolv.conf. Later mounts on the
machine appear in the pod, but mounts in the pod do not appear on the machine. As in
a container, the names of network namespaces are not visible: their mounts would
keep removed namespaces alive.
"""

import errno
import os
from contextlib import suppress
from functools import partial
from pathlib import Path

from netns_lab import linux, netns

VAR = Path("/var")
RESOLV_CONF = Path("/etc/resolv.conf")
SIZE = "64m"


def create(path: Path, resolv_conf: str = "") -> None:
    """Create a namespace, with this text as its /etc/resolv.conf unless it is empty.

    Raises FileExistsError if the namespace exists, FileNotFoundError if the machine has no resolv.conf.
    """
    # The kernel refuses to mount a mount namespace where it would see itself, so mounts here must not spread.
    linux.make_mount_point(path.parent, linux.MS_PRIVATE)
    path.touch(mode=0o444, exist_ok=False)
    try:
        _mount(path, resolv_conf)
    except BaseException:
        remove(path)
        raise


def _mount(path: Path, resolv_conf: str) -> None:
    """Make a namespace and mount it.

    To prevent cycles, the kernel accepts only a namespace whose id is higher than the id of the present one.
    Newer kernels (6.18) give each CPU a range of ids. In a namespace that is not the machine's first, such as
    a container's, only some CPUs create higher ids, including the CPU that created the present namespace.
    """
    refused: OSError | None = None
    for cpus in (None, *({cpu} for cpu in sorted(os.sched_getaffinity(0)))):
        fd = linux.in_a_thread(partial(_make, cpus, resolv_conf))
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


def _make(cpus: set[int] | None, resolv_conf: str) -> int:
    """Create a mount namespace for the calling thread on one of these CPUs. Returns its descriptor."""
    if cpus is not None:
        os.sched_setaffinity(0, cpus)
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("", Path("/"), linux.MS_SLAVE | linux.MS_REC)
    linux.unmount(netns.RUN)
    linux.mount("tmpfs", VAR, 0, "tmpfs", f"mode=755,size={SIZE}")
    (VAR / "run").symlink_to("/run")
    (VAR / "tmp").mkdir()
    (VAR / "tmp").chmod(0o1777)
    if resolv_conf:
        _mount_text(resolv_conf, RESOLV_CONF)
    return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)


def _mount_text(text: str, target: Path) -> None:
    """Mount a file with this text on another one. The file's own name is not visible."""
    file = VAR / target.name
    file.write_text(text)
    linux.mount(str(file), target, linux.MS_BIND)
    file.unlink()


def enter(path: Path) -> None:
    """Move the calling thread permanently into a namespace; into the same directory, if it exists there."""
    directory = Path.cwd()
    linux.unshare(linux.CLONE_FS)
    linux.setns(path, linux.CLONE_NEWNS)
    with suppress(OSError):
        os.chdir(directory)


def remove(path: Path) -> None:
    """Remove the file, if it exists. The kernel frees the namespace when no process is in it any more."""
    linux.unmount(path)
    path.unlink(missing_ok=True)


def remove_all(directory: Path) -> None:
    """Remove everything that ``create`` made in a directory, and the directory, if it exists."""
    linux.unmount(directory)
    for path in directory.glob("*"):
        path.unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        directory.rmdir()
