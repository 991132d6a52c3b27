"""Names in the table: every set and every chain has one, and the numbers in them can be parsed."""

from __future__ import annotations

import pytest

from kproxy.model import Family, Protocol
from kproxy.table import names
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, Options, skeleton


@pytest.mark.parametrize("family", Family)
def test_every_set_and_every_chain_has_a_name(family: Family) -> None:
    server = bytes([127] * family.width)
    table = skeleton(family, Options(name_servers=(server,)), NO_NUMBERED_CHAINS)
    assert sorted(declaration.name for declaration in table.sets) == sorted(names.SetName)
    assert sorted(chain.name for chain in table.chains) == sorted(names.ChainName)


def test_maps_are_named_by_protocol() -> None:
    assert [names.endpoints_map(protocol) for protocol in Protocol] == [
        *(names.SetName.ENDPOINTS_TCP, names.SetName.ENDPOINTS_UDP, names.SetName.ENDPOINTS_SCTP)
    ]
    assert [names.affinity_map(protocol) for protocol in Protocol] == [
        *(names.SetName.AFFINITY_TCP, names.SetName.AFFINITY_UDP, names.SetName.AFFINITY_SCTP)
    ]


@pytest.mark.parametrize("timeout", [1, 60, 86400])
def test_a_chain_names_its_timeout(timeout: int) -> None:
    assert names.remember_timeout(names.remember_chain(timeout)) == timeout


@pytest.mark.parametrize("chain", ["", "remember", "remember-", "remember-x", "lb-3", "60"])
def test_other_chains_have_no_timeout(chain: str) -> None:
    assert names.remember_timeout(chain) is None
