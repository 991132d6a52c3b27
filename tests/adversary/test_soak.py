"""Random attacks, one after the other: kproxy does not grow.

`make test-long` runs it for KPROXY_LONG_MINUTES (default 30).
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import single

from tests.adversary.attacks import OF_FOLDER, RESPONSES, Attack
from tests.adversary.siege import OfCluster, OfFolder, Siege
from tests.support import eventually

pytestmark = [pytest.mark.lab, pytest.mark.long]

MINUTES = float(os.environ.get("KPROXY_LONG_MINUTES", "30"))
SEED = int(os.environ.get("KPROXY_LONG_SEED", "0")) or random.randrange(1, 1_000_000)
WARM_UP = 0.3
"""Part of the time in which memory may still grow; the use after it is normal."""
BAND = 16 << 10
"""KiB that memory may grow after the warm-up."""
FILES_BAND = 8
"""Files that may be open in addition to those before the attacks."""


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
    chance = random.Random(SEED)
    with Lab(single()) as lab:
        siege: Siege = kind(lab, tmp_path)
        files, used = siege.files(), list[int]()
        end, attack = time.monotonic() + 60 * MINUTES / 2, attacks[0]
        while time.monotonic() < end:
            attack = chance.choice([other for other in attacks if other is not attack])
            with siege.under(attack):
                siege.holds(attack)
            used.append(siege.memory())
        eventually(lambda: siege.files() <= files + FILES_BAND, siege.running.logged)
        siege.close()
    warm = used[int(len(used) * WARM_UP) :]
    third = len(warm) // 3
    with capsys.disabled():
        print(f"\nseed {SEED}: {len(used)} attacks; memory {used[0]} ... {warm[0]} ... {warm[-1]} KiB")
    assert min(warm[-third:]) <= max(warm[:third]) + BAND, used
