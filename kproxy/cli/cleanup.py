"""`kproxy cleanup`: remove everything of kproxy from this host, and print what was removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kproxy.cli.output import warn, write
from kproxy.reconcile.cleanup import clean_up
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    done = clean_up(Path(settings.state_dir), settings.keep_state)
    write("".join(f"removed {name}\n" for name in done.removed) or "nothing to remove\n")
    for warning in done.warnings:
        warn(warning)
    return 1 if done.warnings else 0
