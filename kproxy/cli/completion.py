"""`kproxy completion`: print the script that completes commands in a shell, and print its completions.

At each Tab, the script runs kproxy with `VARIABLE` and with the words of the line in its environment. kproxy
prints the possible words at the cursor, and never an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import shlex
from typing import TYPE_CHECKING, NamedTuple

from kproxy.cli.options import HELP, OF_PROGRAM, options_of
from kproxy.cli.output import write
from kproxy.cli.parser import Given, split
from kproxy.settings.verbs import VERBS, Verb

if TYPE_CHECKING:
    from kproxy.settings.flags import Flag
    from kproxy.show.tables import Objects

VARIABLE = "_KPROXY_COMPLETE"
TIMEOUT = 1.0
"""The maximum time in seconds to wait for the objects of a running kproxy."""
PLAIN = "plain"
"""The kind of a completion that is a word. The other kinds are those of `Flag.completes` for paths."""

_BASH = """\
_kproxy() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            file,*) compopt -o default ;;
            dir,*) compopt -o dirnames ;;
            *) COMPREPLY+=("${line#*,}") ;;
        esac
    done < <(_KPROXY_COMPLETE=bash_complete COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD "$1")
}
complete -o nosort -F _kproxy kproxy
"""
_ZSH = """\
#compdef kproxy
_kproxy() {
    local kind word help
    local -a words_only described
    while IFS= read -r kind && IFS= read -r word && IFS= read -r help; do
        case $kind in
            file) _path_files -f ;;
            dir) _path_files -/ ;;
            *) [[ $help == _ ]] && words_only+=("$word") || described+=("${word//:/\\\\:}:$help") ;;
        esac
    done < <(_KPROXY_COMPLETE=zsh_complete COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) kproxy)
    (( $#described )) && _describe -V unsorted described -U
    (( $#words_only )) && compadd -U -V unsorted -a words_only
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _kproxy "$@"
else
    compdef _kproxy kproxy
fi
"""
_FISH = """\
function _kproxy
    set -lx _KPROXY_COMPLETE fish_complete
    set -lx COMP_WORDS (commandline -cp)
    set -lx COMP_CWORD (commandline -t)
    for line in (kproxy)
        set -l found (string split -m 1 "," -- $line)
        switch $found[1]
            case file
                __fish_complete_path $found[2]
            case dir
                __fish_complete_directories $found[2]
            case "*"
                echo $found[2]
        end
    end
end
complete --no-files --command kproxy --arguments "(_kproxy)"
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


class Completion(NamedTuple):
    """A possible word at the cursor."""

    text: str
    help: str = ""
    kind: str = PLAIN


def run(operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    write(SCRIPTS[operands[0]])
    return 0


def complete(instruction: str) -> int:
    """Print the possible words at the cursor.

    `instruction` is the value of VARIABLE, such as `bash_complete`.
    """
    shell = instruction.partition("_")[0]
    with suppress(Exception):
        words, incomplete = _line(shell, os.environ["COMP_WORDS"], os.environ["COMP_CWORD"])
        found = completions(words, incomplete)
        write("".join(f"{_printed(shell, completion)}\n" for completion in found) or "\n")
    return 0


def _line(shell: str, line: str, cursor: str) -> tuple[list[str], str]:
    """Return the words after `kproxy` and before the cursor, and the word at the cursor.

    `cursor` is the number of this word, but fish sends the word itself. bash splits `--output=w` into three
    words.
    """
    words = list(_words(line))
    if shell == "fish":
        incomplete = next(_words(cursor), "")
        return words[1 : -1 if incomplete else None], incomplete
    before, at_cursor = words[1 : int(cursor)], words[int(cursor) :]
    if shell == "bash":
        before = [word for word in before if word != "="]
    return before, at_cursor[0] if at_cursor else ""


def _words(line: str) -> Iterator[str]:
    """Split a line as a shell does. The last word may lack its quote or what follows a backslash."""
    reader = shlex(line, posix=True)
    reader.whitespace_split, reader.commenters = True, ""
    try:
        yield from reader
    except ValueError:
        yield reader.token


def _printed(shell: str, found: Completion) -> str:
    match shell:
        case "zsh":
            return f"{found.kind}\n{found.text}\n{found.help or '_'}"
        case "fish" if found.help:
            return f"{found.kind},{found.text}\t{found.help}"
        case _:
            return f"{found.kind},{found.text}"


# --- what is possible ---


def completions(words: Iterable[str], incomplete: str) -> Iterable[Completion]:
    """Return the possible words in place of an incomplete one. `words` are those before it."""
    rest = iter(words)
    name = next((word for word in split(rest, OF_PROGRAM) if isinstance(word, str)), None)
    if name in VERBS:
        return _of_verb(VERBS[name], rest, incomplete)
    flags = map(Completion, OF_PROGRAM) if incomplete.startswith("-") else ()
    verbs = (Completion(verb.name, verb.summary) for verb in VERBS.values())
    return [each for each in (*verbs, *flags) if each.text.startswith(incomplete)]


def _of_verb(verb: Verb, words: Iterable[str], incomplete: str) -> Iterator[Completion]:
    given = list(split(words, options_of(verb)))
    flags = {word.option.field: word.text for word in given if isinstance(word, Given)}
    last, (name, equals, start) = given[-1] if given else "", incomplete.partition("=")
    if isinstance(last, Given) and last.option.convert and last.text is None:
        yield from _values(_flag(verb, last.name), flags, incomplete.removeprefix("="))
    elif equals and name.startswith("--"):
        values = _values(_flag(verb, name), flags, start)
        yield from (value._replace(text=f"{name}={value.text}") for value in values)
    elif incomplete.startswith("-"):
        yield from (each for each in _flags(verb, flags) if each.text.startswith(incomplete))
    else:
        operands_before = [word for word in given if isinstance(word, str)]
        yield from _starting(operands(verb.name, flags, operands_before, incomplete), incomplete)


def _flag(verb: Verb, name: str) -> Flag:
    """Return a flag that takes a value. Raises StopIteration."""
    from kproxy.settings.flags import flags_of

    return next(flag for flag in flags_of(verb.name) if name in flag.spellings and flag.metavar)


def _flags(verb: Verb, given: Mapping[str, object]) -> Iterator[Completion]:
    """Yield the names of the flags that can be added, with the first sentence of their help."""
    from kproxy.settings.flags import flags_of

    for flag in flags_of(verb.name):
        if flag.repeated or flag.field not in given:
            help_ = flag.help_of(verb.name).replace("`", "").partition(". ")[0]
            yield from (Completion(name, help_) for name in flag.spellings)
    yield from (Completion(name, "Show this help.") for name in HELP.names)


def _values(flag: Flag, given: Mapping[str, str | None], incomplete: str) -> Iterable[Completion]:
    """Return the possible values of a flag: choices, suggestions, paths or namespaces."""
    match flag.completes:
        case "file" | "dir" as kind:
            return [Completion(incomplete, kind=kind)]
        case "namespace":
            return _starting(namespaces(given), incomplete)
        case _:
            return _starting(flag.choices or flag.suggestions, incomplete)


def _starting(words: Iterable[str], incomplete: str) -> Iterator[Completion]:
    return (Completion(word) for word in words if word.startswith(incomplete))


def operands(
    verb: str, flags: Mapping[str, str | None], before: Sequence[str], incomplete: str
) -> Iterable[str]:
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


def _targets(flags: Mapping[str, str | None], before: Sequence[str], incomplete: str) -> Iterable[str]:
    """Return completions of KIND[,KIND...], of names after it, or of KIND/NAME."""
    from kproxy.show.kinds import CATEGORIES, KINDS, plurals_of

    kind, slash, _ = incomplete.partition("/")
    if slash:
        return [f"{kind}/{name}" for plural in plurals_of(kind, KINDS) for name in _names(plural, flags)]
    if before and "/" not in before[0]:
        return [name for plural in plurals_of(before[0], KINDS) for name in _names(plural, flags)]
    earlier = incomplete[: incomplete.rfind(",") + 1]
    return [earlier + word for word in (*KINDS, *CATEGORIES)]


def namespaces(flags: Mapping[str, str | None]) -> Iterable[str]:
    """Return the namespaces of the running kproxy's Services."""
    return sorted({service.name.namespace for service in _objects(flags).services})


def _names(plural: str, flags: Mapping[str, str | None]) -> Iterator[str]:
    """Return the names of the running kproxy's objects of a kind, in the namespace of the flags."""
    from kproxy.show.kinds import KINDS

    kind, namespace = KINDS[plural], flags.get("namespace") or "default"
    names = (kind.name(item) for item in kind.select(_objects(flags)))
    return (name.name for name in names if name.namespace == namespace or not kind.namespaced)


def _objects(flags: Mapping[str, str | None]) -> Objects:
    from kproxy.control.channel import fetch
    from kproxy.settings.settings import settings
    from kproxy.show.tables import objects

    state_dir = flags.get("state_dir") or settings({}, {}, "").state_dir
    return objects(fetch(Path(state_dir), TIMEOUT))
