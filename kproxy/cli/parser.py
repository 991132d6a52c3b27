"""Parses the command line, from the tables of `settings/`.

Flags may be anywhere after the verb, in the spellings of GNU and of Go: `-f PATH`, `-fPATH`, `-f=PATH`,
`--filename=PATH`, `-Av`, `--masquerade-all=false`. Names cannot be abbreviated. Words after `--` are
operands.

Parsing needs only the flags of one verb. The modules of verbs are not imported here: parsing returns a
`Call`, and `main` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kproxy.cli.options import HELP, OF_PROGRAM, UNKNOWN, VERSION, Option, options_of
from kproxy.problems import CommandLineError
from kproxy.settings.verbs import VERBS, Verb

PROGRAM = "kproxy"
CLEANUP = "--cleanup"
"""kube-proxy's flag for what is a verb of kproxy."""
VERBOSITY = "--v"
"""klog's flag. Only its number distinguishes it from kproxy's switch `-v`."""


class Call(NamedTuple):
    """A parsed command line."""

    verb: Verb
    flags: Mapping[str, Any]
    """The values of the flags on the command line, by field of Settings."""
    operands: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """A line for each flag of kube-proxy that has no effect."""


class Given(NamedTuple):
    """A flag on the command line."""

    name: str
    option: Option
    text: str | None
    """Its value; None if there is none."""


def parse(argv: Iterable[str]) -> Call:
    """Parse a command line. Raises CommandLineError."""
    rest = iter(argv)
    for word in split(rest, OF_PROGRAM):
        if isinstance(word, str):
            return _parse_verb(_verb(word), rest)
        if word.option is UNKNOWN:
            raise _unknown(word.name, OF_PROGRAM)
        return _printing(word, ())
    raise CommandLineError("Missing VERB.")


def split(words: Iterable[str], options: Mapping[str, Option]) -> Iterator[Given | str]:
    """Yield the flags with their values, and the operands."""
    left = iter(words)
    for word in left:
        if word == "--":
            yield from left
        elif word.startswith("--"):
            name, equals, text = word.partition("=")
            yield _given(name, options, text if equals else None, left)
        elif word.startswith("-") and word != "-":
            yield from _short_flags(word[1:], options, left)
        else:
            yield word


def _short_flags(letters: str, options: Mapping[str, Option], left: Iterator[str]) -> Iterator[Given]:
    while letters:
        name, letters, text = f"-{letters[0]}", letters[1:], None
        if letters.startswith("=") or (letters and options.get(name, UNKNOWN).convert):
            letters, text = "", letters.removeprefix("=")
        yield _given(name, options, text, left)


def _given(name: str, options: Mapping[str, Option], text: str | None, left: Iterator[str]) -> Given:
    """Return a flag. Its value is the next word if it needs one that is not `text`."""
    option = options.get(name, UNKNOWN)
    return Given(name, option, next(left, None) if option.convert and text is None else text)


def _value(flag: Given, options: Mapping[str, Option]) -> Any:
    """Return the value of a flag. Raises CommandLineError."""
    name, option, text = flag
    if option is UNKNOWN:
        raise _unknown(name, options)
    if text is None:
        if option.convert:
            raise CommandLineError(f"{name} needs a value.")
        return True
    try:
        return option.convert(text) if option.convert else _switch(text)
    except ValueError as error:
        raise CommandLineError(f"{option.names[-1]}: {error}.") from None


def _unknown(name: str, options: Mapping[str, Option]) -> CommandLineError:
    from kproxy.problems import did_you_mean

    return CommandLineError(f"Unknown flag {name}.{did_you_mean(name, options)}")


def _switch(text: str) -> bool:
    from kproxy.settings.text import switch

    return switch(text)


def _verb(name: str) -> Verb:
    if name not in VERBS:
        from kproxy.problems import did_you_mean

        raise CommandLineError(f"Unknown verb {name}.{did_you_mean(name, VERBS)}")
    return VERBS[name]


def _printing(flag: Given, verbs: tuple[str, ...]) -> Call:
    """Return the call of the verb that does the same as --help or --version. Raises CommandLineError."""
    if flag.text is not None:
        raise CommandLineError(f"{flag.name} does not take a value.")
    return Call(VERBS[flag.option.field], {}, verbs if flag.option is HELP else ())


def _parse_verb(verb: Verb, words: Iterable[str]) -> Call:
    options = options_of(verb)
    given = list(split(_with_verbosity(words) if verb.replaces_kube_proxy else words, options))
    found = [word for word in given if isinstance(word, Given)]
    for flag in found:
        if flag.option in (HELP, VERSION):
            return _printing(flag, (verb.name,))
    flags: dict[str, Any] = {}
    for flag in found:
        value, field = _value(flag, options), flag.option.field
        flags[field] = (*flags.get(field, ()), value) if flag.option.repeated else value
    for option in options.values():
        if option.required and option.field not in flags:
            raise CommandLineError(f"Missing flag {' or '.join(option.names)}.")
    call = Call(verb, flags, _operands(verb, [word for word in given if isinstance(word, str)]))
    return _in_place_of_kube_proxy(call) if verb.replaces_kube_proxy else call


def _operands(verb: Verb, words: Sequence[str]) -> tuple[str, ...]:
    """Return the operands of a verb. Raises CommandLineError if they are too few, too many, or wrong."""
    operand = verb.operand
    most = 0 if operand is None else len(words) if operand.several else operand.words
    if extra := words[most:]:
        plural = "s" if len(extra) > 1 else ""
        raise CommandLineError(f"Got unexpected extra argument{plural} ({' '.join(extra)}).")
    if operand and operand.required and not words:
        raise CommandLineError(f"Missing {operand.metavar}.")
    if operand and words and len(words) < operand.words:
        raise CommandLineError("Wrong number of arguments.")
    for word in words:
        if operand and operand.choices and word not in operand.choices:
            choices = ", ".join(operand.choices)
            raise CommandLineError(f"{operand.metavar}: {word!r} is not one of {choices}.")
    return tuple(words)


def _with_verbosity(words: Iterable[str]) -> Iterator[str]:
    """Replace `-v=2`, `-v2` and `-v 2` by klog's `--v=2`. `-v` alone stays."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-v" and rest and rest[0].isdigit():
            yield f"{VERBOSITY}={rest.pop(0)}"
        elif word == "--":
            yield from (word, *rest)
            return
        else:
            yield re.sub(r"^-v=?(\d+)$", rf"{VERBOSITY}=\1", word)


def _in_place_of_kube_proxy(call: Call) -> Call:
    """Replace kube-proxy's flags in a call by their effects."""
    from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS, effects

    flags = dict(call.flags)
    found = [(flag, flags.pop(flag.param)) for flag in KUBE_PROXY_FLAGS if flag.param in flags]
    if (CLEANUP, True) in ((flag.name, value) for flag, value in found):
        return Call(VERBS["cleanup"], {name: flags[name] for name in ("state_dir",) if name in flags}, ())
    values, warnings = effects(found)
    return call._replace(flags=values | flags, warnings=tuple(warnings))
