"""Run a command and print its duration, its CPU time, its peak memory in KiB, and its exit status.

Times are in seconds. Of the CPU time, the part that the kernel used for it follows.

This is a separate process that imports almost nothing: Linux includes the parent's memory at the time of the
fork in a child's peak, so the parent must be small. Run it with `python -I -S`.
"""

from __future__ import annotations

import os
import sys
import time


def main(command: list[str]) -> None:
    """Discard the command's output. Its standard error is that of this process."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    begin = time.perf_counter()
    pid = os.posix_spawnp(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, sys.stdout.fileno())]
    )
    _, status, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime, usage.ru_stime
    print(time.perf_counter() - begin, *cpu, usage.ru_maxrss, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1:])
