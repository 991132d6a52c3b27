"""`kproxy version`: print the version."""

from __future__ import annotations

from collections.abc import Sequence

import kproxy
from kproxy.cli.output import write


def run(operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    write(f"kproxy {kproxy.__version__}\n")
    return 0
