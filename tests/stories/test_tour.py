"""`make tour`: every step of the chapter comes out as in the book."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from netns_lab.lab import Handle

from tests import forkserver
from tour import pictures
from tour.page import page
from tour.script import SECTIONS
from tour.stage import CHAPTER, staged
from tour.walk import walk

pytestmark = pytest.mark.lab


def kproxy(node: Handle, arguments: Sequence[str]) -> str:
    done = forkserver.run(node, arguments)
    return done.stdout + done.stderr


def test_every_step_comes_out_as_in_the_book(tmp_path: Path) -> None:
    with staged(tmp_path, kproxy) as stage:
        walked = list(walk(stage, SECTIONS, lambda command: None))
        for result in (result for _, results in walked for result in results):
            assert result.missing == () or result.step.missing, (
                f"{result.typed}\n{result.output}\n{stage.log()}"
            )
        lab, log = pictures.lab(stage.lab.topology), stage.log()
    report = page(walked, lab, "<svg/>", "")
    assert report.count('<div class="step yes">') + report.count('<div class="step later">') == sum(
        len(section.steps) for section in SECTIONS
    )
    # kproxy's log of the whole folder: it complains only about requests while no pod was ready.
    expected = "default/kubia-nodeport refused "
    assert [line for line in log.splitlines() if " INFO " not in line and expected not in line] == []
    written = {path.name for path in (tmp_path / "services").iterdir()} - {"tls-secret.yaml"}
    assert written == {path.name for path in CHAPTER.glob("*.yaml")}
