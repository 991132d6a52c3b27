"""`kproxy compile`: print the whole ruleset as one nft script. Needs no root and no kernel."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from kproxy.cli.output import print_problems, print_warnings, write
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.problems import Problem
from kproxy.settings.derived import warnings
from kproxy.settings.settings import Settings
from kproxy.table.script import script


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    with progress() as activity:
        snapshot = look_up(settings, activity, settings.allow_empty)
        activity.begin(f"compiling {len(snapshot.frontends)} frontends")
        options = replace(snapshot.options, bridges=())  # the script need not be for this host
        text = "".join(script(snapshot.frontends, options, settings.nft_version))
    found: list[Problem | str] = [*warnings(settings), *snapshot.input_warnings]
    print_problems(snapshot.problems)
    print_warnings(found)
    print_problems(snapshot.notes)
    write(text)
    return 1 if snapshot.problems or (settings.strict and found) else 0
