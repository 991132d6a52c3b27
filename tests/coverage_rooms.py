"""Shows the coverage of each room of kproxy/: lines and branches, from the data of `pytest --cov`.

`make coverage` prints it. The pure rooms need no kernel and no root, so tests that need neither must cover
at least 90% of each. If not, the program fails. The other rooms are only printed: most of their tests run
kproxy in separate processes, which are not measured.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from coverage import Coverage

from tests.unit.test_house import ROOT, is_pure

LEAST = 90.0
"""The minimum for a pure room, in percent."""


class Room(NamedTuple):
    """A folder of kproxy/, or the folder `core` in it."""

    name: str
    pure: bool


def room_of(file: Path) -> Room:
    """Return the room of a module. A module directly in kproxy/ is a room by itself."""
    below = file.relative_to(ROOT / "kproxy").parts
    depth = below.index("core") + 1 if "core" in below else 1
    return Room("/".join(below[:depth]), is_pure(file))


def covered(summaries: dict[Path, dict[str, int]]) -> dict[Room, float]:
    """Return the covered percentage of lines and branches together, by room."""
    done: Counter[Room] = Counter()
    total: Counter[Room] = Counter()
    for file, of in summaries.items():
        done[room_of(file)] += of["covered_lines"] + of["covered_branches"]
        total[room_of(file)] += of["num_statements"] + of["num_branches"]
    return {room: 100 * done[room] / total[room] for room in sorted(total) if total[room]}


def read() -> dict[Path, dict[str, int]]:
    """Return the measured data, by file."""
    data = Coverage()
    data.load()
    with tempfile.NamedTemporaryFile() as file:
        data.json_report(outfile=file.name)
        found = json.load(file)["files"]
    return {(ROOT / name).resolve(): of["summary"] for name, of in found.items()}


def main() -> int:
    """Print a line for each room. Returns 1 if a pure room has less than the minimum."""
    by_room = covered(read())
    for room, percent in by_room.items():
        print(f"{percent:6.1f}%  {room.name}{' (pure)' if room.pure else ''}")
    low = [room.name for room, percent in by_room.items() if room.pure and percent < LEAST]
    if low:
        print(f"less than {LEAST:.0f}% of a pure room is covered: {', '.join(low)}", file=sys.stderr)
    return bool(low)


if __name__ == "__main__":
    sys.exit(main())
