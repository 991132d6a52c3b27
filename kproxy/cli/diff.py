"""`kproxy diff`: show what `kproxy sync` would change. Changes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from kproxy.cli.output import write
from kproxy.cli.sync import synced
from kproxy.printable import printable
from kproxy.reconcile.core.report import RoundReport, lines, summary
from kproxy.settings.settings import Settings
from kproxy.table.layout import TABLE

COLOURS = {"+": "32", "-": "31", "~": "33", "!": "35"}
"""SGR codes of the signs: green, red, yellow, magenta."""


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    colours = COLOURS if _is_coloured() else {}
    with synced(replace(settings, dry_run=True)) as done:
        write("".join(f"{_coloured(printable(line), colours)}\n" for line in _lines(done.report)))
    return 1 if done.report.changed or not done.succeeded(settings.strict) else 0


def _lines(done: RoundReport) -> Iterator[str]:
    yield from lines(done, None)
    for report in done.reports:
        if report.elements:
            yield f"table {report.family} {TABLE}:"
            yield from report.elements
    yield summary(done)


def _coloured(line: str, colours: dict[str, str]) -> str:
    code = colours.get(line[:1]) if line[1:2] == " " else None
    return f"\x1b[{code}m{line}\x1b[m" if code else line


def _is_coloured() -> bool:
    """Whether standard output is a terminal that shows colours (https://no-color.org)."""
    dumb = os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR")
    return bool(sys.stdout and sys.stdout.isatty() and not dumb)
