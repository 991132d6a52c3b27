"""`kproxy completion`: print the script that completes commands in a shell, and print its completions.

The scripts are click's. At each Tab they run kproxy with `VARIABLE` in its environment, and kproxy prints the
possible words at the cursor. It never prints an error in this case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.shell_completion import BashComplete, CompletionItem, FishComplete, ShellComplete, ZshComplete

from kproxy.cli.output import write
from kproxy.cli.parser import PROGRAM, program
from kproxy.settings.verbs import VERBS

if TYPE_CHECKING:
    from kproxy.show.tables import Objects

VARIABLE = "_KPROXY_COMPLETE"
TIMEOUT = 1.0
"""The maximum time in seconds to wait for the objects of a running kproxy."""


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


def operands(verb: str, flags: Mapping[str, Any], before: Sequence[str], incomplete: str) -> Iterable[str]:
    """Return the possible next operands of a verb. `before` contains the complete ones."""
    match verb:
        case "get" | "describe":
            return _targets(flags, before, incomplete)
        case "env":
            return _names("pods", flags)
        case "doctor" | "connections":
            return _names("services", flags)
        case "help":
            return VERBS
        case _:
            operand = VERBS[verb].operand
            return operand.choices if operand else ()


def _targets(flags: Mapping[str, Any], before: Sequence[str], incomplete: str) -> Iterable[str]:
    """Return completions of KIND[,KIND...], of names after it, or of KIND/NAME."""
    from kproxy.show.kinds import CATEGORIES, KINDS, plurals_of

    kind, slash, _ = incomplete.partition("/")
    if slash:
        return [f"{kind}/{name}" for plural in plurals_of(kind, KINDS) for name in _names(plural, flags)]
    if before and "/" not in before[0]:
        return [name for plural in plurals_of(before[0], KINDS) for name in _names(plural, flags)]
    earlier = incomplete[: incomplete.rfind(",") + 1]
    return [earlier + word for word in (*KINDS, *CATEGORIES)]


def namespaces(flags: Mapping[str, Any]) -> Iterable[str]:
    """Return the namespaces of the running kproxy's Services."""
    return sorted({service.name.namespace for service in _objects(flags).services})


def _names(plural: str, flags: Mapping[str, Any]) -> Iterator[str]:
    """Return the names of the running kproxy's objects of a kind, in the namespace of the flags."""
    from kproxy.show.kinds import KINDS

    kind, namespace = KINDS[plural], flags.get("namespace") or "default"
    names = (kind.name(item) for item in kind.select(_objects(flags)))
    return (name.name for name in names if name.namespace == namespace or not kind.namespaced)


def _objects(flags: Mapping[str, Any]) -> Objects:
    from kproxy.control.channel import fetch
    from kproxy.settings.settings import settings
    from kproxy.show.tables import objects

    state_dir = flags.get("state_dir") or settings({}, {}, "").state_dir
    return objects(fetch(Path(state_dir), TIMEOUT))
