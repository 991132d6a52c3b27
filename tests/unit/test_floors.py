"""No room imports from its own floor or from one above it. docs/architecture.md has the floors."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.unit.test_house import MODULES, ROOT, imported, is_pure, module_file, name_of

PAGE = ROOT / "docs" / "architecture.md"
ROW = re.compile(r"^\| (\d+) \| (`[^|]+`) \| [^|]+ \| (yes)? ?\|$", re.MULTILINE)
OUTSIDE = ("__init__.py", "__main__.py")
"""Files of the package that are in no room: the version, and what starts the command line."""


def floors() -> dict[str, int]:
    """The floor of each room, by the path below kproxy/."""
    rows = ROW.findall(PAGE.read_text())
    return {room: int(floor) for floor, rooms, _ in rows for room in re.findall(r"`([^`]+)`", rooms)}


FLOORS = floors()


def room_of(file: Path) -> str:
    """The room that a file is in: the innermost folder that the page names, or the file itself."""
    below = file.relative_to(ROOT / "kproxy")
    return next(str(place) for place in (below, *below.parents) if str(place) in FLOORS)


def above(source: str, file: Path) -> list[str]:
    """What the text of a file imports from its own floor or from one above, its own room aside."""
    own, found = room_of(file), []
    package = ".".join(file.relative_to(ROOT).parts[:-1])
    for line, name in imported(ast.parse(source), package):
        target = module_file(name) or module_file(name.rpartition(".")[0])
        if name.partition(".")[0] != "kproxy" or target is None or target.name in OUTSIDE:
            continue
        room = room_of(target)
        if room != own and FLOORS[room] >= FLOORS[own]:
            found.append(f"line {line}: imports {name} of {room}, floor {FLOORS[room]}")
    return found


IN_ROOMS = [file for file in MODULES if str(file.relative_to(ROOT / "kproxy")) not in OUTSIDE]


@pytest.mark.parametrize("file", IN_ROOMS, ids=name_of)
def test_a_room_imports_only_from_the_floors_below(file: Path) -> None:
    assert above(file.read_text(), file) == []


def test_the_page_names_every_room_and_only_rooms() -> None:
    folders = {str(file.relative_to(ROOT / "kproxy").parent) for file in MODULES}
    cores = {folder for folder in folders if folder.endswith("core")}
    top = {folder.partition("/")[0] for folder in folders} - {"."}
    files = {file.name for file in (ROOT / "kproxy").glob("*.py")} - set(OUTSIDE)
    assert FLOORS.keys() == cores | top | files


def test_the_page_says_which_rooms_are_pure() -> None:
    said = {
        room
        for _, rooms, pure in ROW.findall(PAGE.read_text())
        if pure
        for room in re.findall(r"`([^`]+)`", rooms)
    }
    pure = {room_of(file) for file in IN_ROOMS if is_pure(file)}
    assert said == pure


@pytest.mark.parametrize(
    ("room", "source", "complaints"),
    [
        ("table/plan.py", "from kproxy.model import Service", 0),
        ("table/plan.py", "from kproxy.table import layout", 0),
        ("table/plan.py", "from kproxy.controlplane import pool", 1),
        ("table/plan.py", "import kproxy.kernel.host", 1),
        ("kernel/host.py", "def f() -> None:\n    from kproxy.reconcile import flows", 1),
        ("reconcile/flows.py", "from kproxy.reconcile.core.report import Report", 0),
        ("reconcile/core/report.py", "from kproxy.reconcile import flows", 1),
        ("cli/sync.py", "from kproxy import __version__\nimport json", 0),
    ],
)
def test_an_import_from_above_is_found(room: str, source: str, complaints: int) -> None:
    assert len(above(source, ROOT / "kproxy" / room)) == complaints
