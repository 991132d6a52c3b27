"""Tests that run as the user `nobody`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NOBODY = 65534


def nobody_can_run() -> bool:
    """Whether this process is root, and other users can read the interpreter and the source tree."""
    try:
        command = [sys.executable, "-c", "import kproxy.cli"]
        return os.geteuid() == 0 and not subprocess.run(command, user=NOBODY, capture_output=True).returncode
    except PermissionError:
        return False


as_nobody = pytest.mark.skipif(not nobody_can_run(), reason="needs root, and a tree that others can read")
