"""kproxy goes on under each attack."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import single

from tests.adversary.attacks import (
    ALL_QUERIES,
    ALL_REPLIES,
    ANSWERS,
    FILES,
    QUERIES,
    REPLIES,
    REQUESTS,
    RESPONSES,
    Attack,
)
from tests.adversary.siege import OfCluster, OfFolder, Siege

pytestmark = pytest.mark.lab

LONG = (*QUERIES, *REPLIES)
SHORT = (*ANSWERS, *REQUESTS, ALL_QUERIES, ALL_REPLIES, *FILES)


@pytest.fixture(scope="module")
def siege(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    with Lab(single()) as lab:
        siege: Siege = request.param(lab, tmp_path_factory.mktemp("siege"))
        yield siege
        siege.close()


@pytest.mark.parametrize("siege", [OfFolder], indirect=True, ids=[""])
@pytest.mark.parametrize("attack", SHORT, ids=lambda attack: attack.name)
def test_with_a_folder_of_manifests(siege: Siege, attack: Attack) -> None:
    with siege.under(attack):
        siege.holds(attack)


@pytest.mark.long
@pytest.mark.parametrize("siege", [OfFolder], indirect=True, ids=[""])
@pytest.mark.parametrize("attack", LONG, ids=lambda attack: attack.name)
def test_with_each_message_of_dns(siege: Siege, attack: Attack) -> None:
    with siege.under(attack):
        siege.holds(attack)


@pytest.mark.parametrize("siege", [OfCluster], indirect=True, ids=[""])
@pytest.mark.parametrize("attack", RESPONSES, ids=lambda attack: attack.name)
def test_with_an_api_server(siege: Siege, attack: Attack) -> None:
    with siege.under(attack):
        siege.holds(attack)
