"""`kproxy help`: print the verbs, or the flags and examples of one verb, within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from click import HelpFormatter

from kproxy.cli.output import write
from kproxy.problems import CommandLineError
from kproxy.settings.verbs import STATUSES, SUMMARY, VERBS, Verb, usage

COLUMNS = 80
COLUMN = 24
"""The position of the second column. A longer flag has a separate line."""


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
    page = HelpFormatter(width=COLUMNS)
    page.write("".join(f"{line}\n" for line in usage(verb)))
    _describe(page, verb) if verb else _describe_all(page)
    return page.getvalue().rstrip("\n")


def _describe(page: HelpFormatter, verb: Verb) -> None:
    for paragraph in verb.description:
        page.write_paragraph()
        page.write_text(_plain(paragraph))
    with page.section("Examples"):
        for purpose, command in verb.examples:
            page.write(f"  # {purpose.rstrip(':')}\n  {command}\n")
    for heading, rows in _flag_groups(verb):
        with page.section(heading):
            page.write_dl([(names.ljust(COLUMN), text) for names, text in rows], COLUMN)
    with page.section("Help"):
        page.write_dl([("-h, --help".ljust(COLUMN), "Show this help.")])


def _describe_all(page: HelpFormatter) -> None:
    page.write_paragraph()
    page.write_text(SUMMARY)
    with page.section("Verbs"):
        page.write_dl([(verb.name, verb.summary) for verb in VERBS.values()])
    with page.section("Flags"):
        page.write_dl([("-h, --help", "Show this help."), ("--version", "Print the version.")])
    with page.section("Exit status"):
        page.write_dl([(str(status), meaning) for status, meaning in STATUSES])
    page.write_paragraph()
    page.write_text("`kproxy help VERB` shows the flags and examples of a verb.".replace("`", "'"))


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
