"""`kproxy completion`: print the script that completes commands in a shell.

The scripts are click's. At each Tab they run kproxy with `VARIABLE` in its environment, and kproxy prints
what may stand there.
"""

from __future__ import annotations

from collections.abc import Sequence

from click.shell_completion import get_completion_class, shell_complete

from kproxy.cli.output import write
from kproxy.cli.parser import PROGRAM, program

VARIABLE = "_KPROXY_COMPLETE"


def run(operands: Sequence[str]) -> int:
    """Returns the exit status."""
    (shell,) = operands
    made = get_completion_class(shell)
    assert made is not None
    script = made(program(), {}, PROGRAM, VARIABLE)
    write(script.source_template % script.source_vars())
    return 0


def complete(instruction: str) -> int:
    """Print what may stand at the cursor. `instruction` is the value of VARIABLE."""
    return shell_complete(program(), {}, PROGRAM, VARIABLE, instruction)
