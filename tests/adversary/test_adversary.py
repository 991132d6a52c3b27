"""kproxy goes on under each attack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import single

from tests.adversary.attacks import ATTACKS, Attack
from tests.adversary.siege import Siege

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    with Lab(single()) as lab:
        siege = Siege(lab, tmp_path_factory.mktemp("siege"))
        yield siege
        siege.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_kproxy_goes_on(siege: Siege, attack: Attack) -> None:
    with siege.under(attack):
        siege.holds(attack)
