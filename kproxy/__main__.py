"""The entry point of `kproxy` and of `python -m kproxy`: it makes Ctrl-C end a command without a traceback.

The command itself catches KeyboardInterrupt. While its modules are imported, and after it has ended, Ctrl-C
ends the process at once, as it ends programs that are not written in Python.
"""

import signal
import sys

INTERRUPTED = 130
"""128 plus the number of SIGINT, as in shells."""


def main() -> int:
    """Run the command line of this process. Returns the exit status."""
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
    sys.exit(main())
