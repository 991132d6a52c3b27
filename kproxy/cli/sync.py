"""`kproxy sync`: program the Services of manifests into the kernel, and print the changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kproxy.cli.output import print_problems, print_warnings, warn, write, write_lines
from kproxy.cli.progress import progress
from kproxy.reconcile.core.report import LINES
from kproxy.reconcile.sync import SyncResult, sync
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    with synced(settings) as done:
        write_lines(done.lines(None if settings.verbose else LINES))
        if settings.dry_run:
            write("dry run: nothing was changed\n")
    return 0 if done.succeeded(settings.strict) else 1


@contextmanager
def synced(settings: Settings) -> Iterator[SyncResult]:
    """Sync, or preview it with `dry_run`. The block prints the result.

    What is wrong with the input is printed before it, and what went wrong with the result after it.
    """
    with progress() as activity, sync(settings, warn, activity) as manifests:
        print_problems(manifests.problems)
        print_warnings(manifests.warnings)
        print_problems(manifests.notes)
        done = manifests.program()
    yield done
    print_problems(done.complaints)
    print_warnings(done.warnings)
