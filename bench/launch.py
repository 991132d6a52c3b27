"""Run a command and print what it took: seconds, peak memory in KiB, exit status.

A process of its own, and one that imports next to nothing: Linux counts towards a child's peak
what its parent had when it was forked, so the parent has to be small. Run it with `python -I -S`.
"""

from __future__ import annotations

import os
import sys
import time


def main(command: list[str]) -> None:
    """The command's output is thrown away, its errors come through."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    begin = time.perf_counter()
    pid = os.posix_spawnp(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, sys.stdout.fileno())]
    )
    _, status, usage = os.wait4(pid, 0)
    print(time.perf_counter() - begin, usage.ru_maxrss, os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1:])
