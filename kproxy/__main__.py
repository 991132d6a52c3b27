"""The entry point of `kproxy` and of `python -m kproxy`: how the process of a command ends.

Ctrl-C ends a command without a traceback. The command itself catches KeyboardInterrupt. While its modules are
imported, and after it has ended, Ctrl-C ends the process immediately, as it ends programs that are not
written in Python.

After the command, the process ends without Python's own end, which would deallocate all objects one by one.
That would take a seventh of the time of a small sync. Commands close what they open, so only the buffers of
the standard streams remain.

A standard stream may be closed at the start. The next file or socket that is opened would get its number, and
with it what other code and child processes write to that stream. So /dev/null takes the number.
"""

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from kproxy import INTERRUPTED

STANDARD_ERROR = 2


def main() -> NoReturn:
    """Run the command line of this process, and end the process with its exit status."""
    # A command makes almost no garbage. Collection would take a fifth of the time of a large sync, or half
    # with YAML. `get --watch` and the daemon enable it again.
    gc.disable()
    _reserve_standard_streams()
    status = _run()
    for stream in (sys.stdout, sys.stderr):
        if stream:  # None if the shell closed it
            with suppress(OSError):
                stream.flush()
    os._exit(status)


def _reserve_standard_streams() -> None:
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(number, True)
    os.close(number)


def _run() -> int:
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        from kproxy.cli import main as run  # SIGINT is ignored, as in the background of a shell

        return run()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kproxy.cli import main as run

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run()
    except KeyboardInterrupt:  # before or after the command
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
