"""`kproxy cleanup`: remove everything of kproxy from this host, and print what was removed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kproxy.cli.output import warn, write
from kproxy.gateway.folder import Folders
from kproxy.gateway.removal import remove
from kproxy.reconcile.cleanup import clean_up
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    state = Path(settings.state_dir)
    done = clean_up(state, warn, settings.keep_state)
    removed = [*(f"HAProxy: process {pid}" for pid in remove(Folders(state))), *done.removed]
    write("".join(f"removed {name}\n" for name in removed) or "nothing to remove\n")
    for warning in done.warnings:
        warn(warning)
    return 1 if done.warnings else 0
