"""kproxy that waits before it compares a table: `python -m tests.waiting FIFO VERB FLAG...`.

While the FIFO exists, each rehearsal of the rules first reads it to its end. So a test can stop kproxy
between the reading of a table and the first commit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

from kproxy import cli
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.structure import Structure


def main(fifo: Path, arguments: list[str]) -> int:
    """Run kproxy. Returns its exit status."""
    rehearse = Rehearsal.expected_structure

    def wait(rehearsal: Rehearsal, skeleton: Skeleton) -> Structure:
        if fifo.exists():
            fifo.read_bytes()
        return rehearse(rehearsal, skeleton)

    with patch.object(Rehearsal, "expected_structure", wait):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
