"""`kproxy sync`: program the Services of manifests into the kernel, and print the changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kproxy.cli.output import print_problems, print_warnings, warn, write, write_lines
from kproxy.cli.progress import progress
from kproxy.reconcile.core.report import LINES
from kproxy.reconcile.sync import sync
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    logging.basicConfig(handlers=[_Warnings()])
    with progress() as activity, sync(settings, activity) as manifests:
        print_problems(manifests.problems)
        print_warnings(manifests.warnings)
        print_problems(manifests.notes)
        done = manifests.program()
    write_lines(done.lines(None if settings.verbose else LINES))
    if settings.dry_run:
        write("dry run: nothing was changed\n")
    print_problems(done.complaints)
    print_warnings(done.warnings)
    has_warnings = bool(manifests.warnings or done.warnings)
    return 0 if done.complete and not (settings.strict and has_warnings) else 1


class _Warnings(logging.Handler):
    """Prints log records like the command's other warnings, after removing the progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        warn(record.getMessage())
