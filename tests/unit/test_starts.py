"""kproxy as a process: what it imports for which command, what it logs, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python that has imported nothing of kproxy's."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_verbose_log_is_kproxys_own() -> None:
    done = python("""
import logging
from kproxy.daemon.start import configure_log
configure_log(verbose=True)
for name in ("pyroute2", "asyncio", "kubernetes.client", "kproxy.reconcile.round"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).warning("warning of %s", name)
""")
    assert [line.partition(" ")[2] for line in done.stderr.splitlines()] == [
        "WARNING warning of pyroute2",
        "WARNING warning of asyncio",
        "WARNING warning of kubernetes.client",
        "DEBUG debug of kproxy.reconcile.round",
        "WARNING warning of kproxy.reconcile.round",
    ]
