"""The report of coverage adds up files to rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import coverage_rooms
from tests.coverage_rooms import Room, covered, main
from tests.unit.test_house import ROOT


def summary(lines: int, of_lines: int, branches: int = 0, of_branches: int = 0) -> dict[str, int]:
    return {
        "covered_lines": lines,
        "num_statements": of_lines,
        "covered_branches": branches,
        "num_branches": of_branches,
    }


def files(decode: int) -> dict[Path, dict[str, int]]:
    """A file of a pure room with `decode` of 100 lines and branches, and files of other rooms."""
    return {
        ROOT / "kproxy/decode/service.py": summary(decode - 5, 90, 5, 10),
        ROOT / "kproxy/kernel/netlink/core/codec.py": summary(19, 20),
        ROOT / "kproxy/kernel/netlink/socket.py": summary(1, 10),
        ROOT / "kproxy/kernel/__init__.py": summary(0, 0),
    }


def test_files_add_up_to_rooms() -> None:
    assert covered(files(25)) == {
        Room("decode", True): 25,
        Room("kernel", False): 10,
        Room("kernel/netlink/core", True): 95,
    }


@pytest.mark.parametrize(("decode", "status"), [(89, 1), (90, 0)])
def test_a_pure_room_with_too_little_fails(
    decode: int, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage_rooms, "read", lambda: files(decode))
    assert main() == status
    printed = capsys.readouterr()
    assert f"{decode}.0%  decode (pure)" in printed.out
    assert ("decode" in printed.err) == bool(status)
