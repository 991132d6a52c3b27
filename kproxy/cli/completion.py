"""`kproxy completion`: print the script that completes commands in a shell, and print its completions.

The scripts are click's. At each Tab they run kproxy with `VARIABLE` in its environment, and kproxy prints the
possible words at the cursor. It never prints an error in this case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from kproxy.cli.output import write
from kproxy.cli.parser import PROGRAM, program

VARIABLE = "_KPROXY_COMPLETE"


class _Bash(BashComplete):
    """bash splits `--output=wide` into three words."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the word at the cursor."""
        words, incomplete = super().get_completion_args()
        return [word for word in words if word != "="], incomplete


class _WholeWord(ShellComplete):
    """zsh and fish replace the whole word `--output=w`."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return the possible words at the cursor."""
        items = super().get_completions(args, incomplete)
        flag, equals, _ = incomplete.partition("=")
        if equals and flag.startswith("--"):
            for item in items:
                item.value = f"{flag}={item.value}"
        return items


class _Zsh(_WholeWord, ZshComplete):
    pass


class _Fish(_WholeWord, FishComplete):
    """click's script for fish, changed so that descriptions may contain commas."""

    source_template = FishComplete.source_template.replace('string split ","', 'string split -m 1 ","')


SHELLS: Mapping[str, type[ShellComplete]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def run(operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    script = _for(operands[0])
    write(script.source_template % script.source_vars())
    return 0


def _for(shell: str) -> ShellComplete:
    return SHELLS[shell](program(), {}, PROGRAM, VARIABLE)


def complete(instruction: str) -> int:
    """Print the possible words at the cursor.

    `instruction` is the value of VARIABLE, such as `bash_complete`.
    """
    with suppress(Exception):
        write(_for(instruction.partition("_")[0]).complete() + "\n")
    return 0
