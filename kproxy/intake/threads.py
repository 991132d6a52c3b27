"""The threads in which a daemon waits for the kernel and the disk. All are started at its start.

Python starts the threads of an executor when they are needed. If the host allows no more processes then (the
limit of a cgroup, for example TasksMax of a unit), work fails that has nothing to do with that.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from kproxy.intake.memory import use_one_arena
from kproxy.problems import HostError

WORKERS = 8
"""The number of threads for everything but rounds."""


def started_threads(count: int, name: str) -> ThreadPoolExecutor:
    """Return an executor whose threads all run. Raises HostError if the host does not allow them."""
    use_one_arena()
    executor, together = ThreadPoolExecutor(count, name), Barrier(count + 1)
    try:
        for _ in range(count):  # each waits, so that the next one needs another thread
            executor.submit(together.wait)
    except RuntimeError as error:
        together.abort()
        executor.shutdown(wait=False, cancel_futures=True)
        raise HostError(f"Cannot start {count} threads: {error}.", "See pids.max of the cgroup.") from None
    together.wait()
    return executor
