"""Random attacks, one after the other: kproxy does not grow.

Memory is read at quiet points: after a minute of attacks, there are none until kproxy has returned what it
no longer needs. Modules are imported and caches filled in the first half of the time. In the second half, the
trend must be flat. It is the median of the slopes between any two points, so one point matters little.

`make test-long` runs it for KPROXY_LONG_MINUTES (default 30) with a folder, and as long with an API server.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from statistics import median

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import single

from kproxy.intake.memory import PERIOD
from tests.adversary.attacks import OF_FOLDER, RESPONSES, Attack
from tests.adversary.siege import OfCluster, OfFolder, Siege

pytestmark = [pytest.mark.lab, pytest.mark.long]

MINUTES = float(os.environ.get("KPROXY_LONG_MINUTES", "30"))
SEED = int(os.environ.get("KPROXY_LONG_SEED", "0")) or random.randrange(1, 1_000_000)
ATTACKED = 60.0
"""Seconds of attacks between two quiet points."""
QUIET = PERIOD + 2
"""Seconds without an attack before memory is read."""
GROWTH = 4 << 10
"""KiB by which the trend of the second half may rise."""
FILES_BAND = 8
"""Files that may be open at a quiet point in addition to those before the first attack."""


def attacked(siege: Siege, attacks: Sequence[Attack], chance: random.Random, until: float) -> int:
    """Attack at random until this time. Returns the number of attacks."""
    done, attack = 0, attacks[0]
    while time.monotonic() < until:
        attack = chance.choice([other for other in attacks if other is not attack])
        with siege.under(attack):
            siege.holds(attack)
        done += 1
    return done


def quiet_use(siege: Siege) -> tuple[int, int]:
    """Return the memory in KiB and the number of open files after a pause."""
    with pytest.raises(subprocess.TimeoutExpired):
        siege.running.process.wait(QUIET)
    return siege.memory(), siege.files()


def growth_of(used: Sequence[int]) -> float:
    """Return by how much the trend rises from the first to the last of these values."""
    slopes = [(after - before) / (j - i) for (i, before), (j, after) in combinations(enumerate(used), 2)]
    return median(slopes) * (len(used) - 1) if slopes else 0.0


@pytest.mark.parametrize(
    ("kind", "attacks"),
    [(OfFolder, OF_FOLDER), (OfCluster, RESPONSES)],
    ids=["folder", "cluster"],
)
def test_random_attacks_for_a_long_time(
    kind: type[OfFolder | OfCluster],
    attacks: Sequence[Attack],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance, used, done = random.Random(SEED), list[int](), 0
    with Lab(single()) as lab:
        siege: Siege = kind(lab, tmp_path)
        (_, before), end = quiet_use(siege), time.monotonic() + 60 * MINUTES
        while (now := time.monotonic()) < end:
            done += attacked(siege, attacks, chance, min(now + ATTACKED, end))
            memory, files = quiet_use(siege)
            assert files <= before + FILES_BAND
            used.append(memory)
        siege.close()
    growth = growth_of(used[len(used) // 2 :])
    with capsys.disabled():
        print(f"\nseed {SEED}: {done} attacks; memory {used} KiB; the second half grew by {growth:.0f} KiB")
    assert growth <= GROWTH, used
