"""`kproxy run`: keep the kernel's tables up to date while Services change, until told to stop."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kproxy.daemon.start import run_daemon
from kproxy.kernel.host import require_root
from kproxy.settings.derived import check_daemon
from kproxy.settings.settings import Settings


def run(chosen: Settings, operands: Sequence[str]) -> int:
    """Returns the exit status."""
    require_root()
    check_daemon(chosen, in_pod="KUBERNETES_SERVICE_HOST" in os.environ)
    return run_daemon(chosen)
