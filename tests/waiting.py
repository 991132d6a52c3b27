"""kproxy that waits before it compares a table: `python -m tests.waiting FIFO VERB FLAG...`.

While the FIFO exists, each plan for a whole table first reads it to its end. So a test can stop kproxy
between the reading of a table and the first commit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kproxy import cli
from kproxy.table.plan import Plan, plan


def main(fifo: Path, arguments: list[str]) -> int:
    """Run kproxy. Returns its exit status."""

    def wait(*of: Any) -> Plan:
        if fifo.exists():
            fifo.read_bytes()
        return plan(*of)

    with patch("kproxy.reconcile.dataplane.plan", wait):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
