"""`kproxy help`: print the verbs, or the flags and examples of one verb, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import fill

from kproxy.cli.output import write
from kproxy.problems import CommandLineError
from kproxy.settings.verbs import STATUSES, SUMMARY, VERBS, Verb, usage

COLUMNS = 80
COLUMN = 24
"""The width of the first column. A longer flag has a separate line."""


def run(operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    for name in operands:
        if name not in VERBS:
            from kproxy.problems import did_you_mean

            raise CommandLineError(f"Unknown verb {name}.{did_you_mean(name, VERBS)}")
    write(help_of(VERBS[operands[0]] if operands else None) + "\n")
    return 0


def help_of(verb: Verb | None) -> str:
    """Return the help of a verb, or of kproxy itself, without the last newline."""
    return "\n\n".join(["\n".join(usage(verb)), *(_description(verb) if verb else _all_verbs())])


def _description(verb: Verb) -> Iterator[str]:
    yield from (fill(_plain(paragraph), COLUMNS) for paragraph in verb.description)
    examples = (f"  # {purpose.rstrip(':')}\n  {command}" for purpose, command in verb.examples)
    yield _section("Examples", examples)
    for heading, rows in _flag_groups(verb):
        yield _section(heading, _table(rows, COLUMN))
    yield _section("Help", _table([("-h, --help", "Show this help.")], COLUMN))


def _all_verbs() -> Iterator[str]:
    yield SUMMARY
    yield _section("Verbs", _table([(verb.name, verb.summary) for verb in VERBS.values()]))
    yield _section("Flags", _table([("-h, --help", "Show this help."), ("--version", "Print the version.")]))
    yield _section("Exit status", _table([(str(status), meaning) for status, meaning in STATUSES]))
    yield "'kproxy help VERB' shows the flags and examples of a verb."


def _section(heading: str, lines: Iterable[str]) -> str:
    return "\n".join([f"{heading}:", *lines])


def _table(rows: Sequence[tuple[str, str]], width: int = 0) -> Iterator[str]:
    """Yield the rows of two columns, of which the first has this width, or that of its longest text."""
    width = width or max(len(first) for first, _ in rows)
    indent = " " * (width + 4)
    for first, second in rows:
        wrapped = fill(second, COLUMNS, initial_indent=indent, subsequent_indent=indent)
        start = f"  {first}"
        yield f"{start}\n{wrapped}" if len(first) > width else start + wrapped[len(start) :]


def _flag_groups(verb: Verb) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return headings, and below each the flags and their texts."""
    if not verb.takes_flags:
        return []
    from kproxy.settings.flags import flags_of

    groups: dict[str, list[tuple[str, str]]] = {}
    for flag in flags_of(verb.name):
        groups.setdefault(flag.group.value, []).append((flag.names, _plain(flag.help_of(verb.name))))
    return list(groups.items())


def _plain(text: str) -> str:
    return text.replace("`", "")
