"""`kproxy sync`: make the kernel's tables contain what the manifests say, and print what changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kproxy.cli.output import print_problems, warn, write
from kproxy.cli.progress import progress
from kproxy.reconcile.core.report import LINES
from kproxy.reconcile.sync import sync
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    logging.basicConfig(handlers=[_Warnings()])
    with progress() as activity, sync(settings, activity) as manifests:
        print_problems(manifests.problems)
        done = manifests.program()
    write("".join(f"{line}\n" for line in done.lines(None if settings.verbose else LINES)))
    for complaint in done.complaints:
        warn(complaint)
    return 0 if done.complete else 1


class _Warnings(logging.Handler):
    """Prints log records like the command's other warnings, after removing the progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        warn(record.getMessage())
