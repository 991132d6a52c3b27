"""`kproxy run`: keep the kernel's tables up to date while Services change, until a signal."""

from __future__ import annotations

import os
from collections.abc import Sequence

from kproxy.daemon.start import run_daemon
from kproxy.kernel.host import require_root
from kproxy.settings.derived import check_daemon
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    require_root()
    check_daemon(settings, in_pod="KUBERNETES_SERVICE_HOST" in os.environ)
    return run_daemon(settings)
