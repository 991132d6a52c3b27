"""Every set and chain has a name, numbers in names can be parsed, and no two frontend sides share a slot."""

from __future__ import annotations

from itertools import product

import pytest

from kproxy.model import Balance, Family, Protocol, parse_address
from kproxy.nft.elements import Elements, Verdict
from kproxy.table.layout import (
    ChainName,
    EndpointScope,
    FrontendSide,
    FrontendSpec,
    SetName,
    SlotChain,
    affinity_map,
    endpoints_map,
    frontend_key,
    is_numbered,
    pack_socket,
    remember_chain,
    remember_timeout,
    slot_chain_of,
    slot_endpoints,
)
from kproxy.table.plan import is_sticky
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, Options, skeleton
from tests.keys import slot

SLOT_CHAINS = [SlotChain(*parts) for parts in product(EndpointScope, Balance, (1, 2, 1021))]
KEY = frontend_key(parse_address("10.96.0.9"), Protocol.TCP, 80)


@pytest.mark.parametrize("slot_chain", SLOT_CHAINS, ids=lambda slot_chain: str(slot_chain.chain))
def test_the_name_of_a_slot_chain_can_be_parsed(slot_chain: SlotChain) -> None:
    assert slot_chain_of(Verdict(f"goto {slot_chain.chain}", "a/b:c")) == slot_chain
    assert is_numbered(slot_chain.chain)
    assert is_sticky(Verdict(f"goto {slot_chain.chain}")) is (slot_chain.balance is Balance.STICKY)


def test_slot_chains_have_different_names() -> None:
    assert len({slot_chain.chain for slot_chain in SLOT_CHAINS}) == len(SLOT_CHAINS)
    assert [SlotChain(scope, Balance.RANDOM, 3).chain for scope in EndpointScope] == [
        "lb-3",
        "outside-lb-3",
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("drop", "accept", "goto no-endpoints", "goto discard", "goto elsewhere", "goto lb-", "goto lb-x"),
        *("goto lb-1x", "goto masq-3", "goto inside-lb-1", "goto outside-", "goto outside-outside-lb-1"),
        "goto hash-1",
    ],
)
def test_other_verdicts_lead_to_no_slots(text: str) -> None:
    assert slot_chain_of(Verdict(text)) is None
    assert not is_numbered(Verdict(text).chain)


@pytest.mark.parametrize("value", [None, b"", b"\n\0\0\1\0P\0\0"])
def test_other_values_lead_to_no_slots(value: bytes | None) -> None:
    assert slot_chain_of(value) is None


@pytest.mark.parametrize("chain", ["remember-60", "remember-86400"])
def test_chains_of_timeouts_are_numbered(chain: str) -> None:
    assert is_numbered(chain)


@pytest.mark.parametrize("chain", ["remember", "remember-x", "services", "masq-always", "output"])
def test_other_chains_are_not_numbered(chain: str) -> None:
    assert not is_numbered(chain)


@pytest.mark.parametrize(
    ("scope", "balance", "count", "text"),
    [
        (EndpointScope.ALL, Balance.RANDOM, 0, "goto discard"),
        (EndpointScope.LOCAL, Balance.STICKY, 0, "goto discard"),
        (EndpointScope.ALL, Balance.RANDOM, 1, "goto lb-1"),
        (EndpointScope.ALL, Balance.RANDOM, 2, "goto lb-4"),
        (EndpointScope.ALL, Balance.RANDOM, 4, "goto lb-4"),
        (EndpointScope.ALL, Balance.RANDOM, 5, "goto lb-8"),
        (EndpointScope.ALL, Balance.RANDOM, 1024, "goto lb-1024"),
        (EndpointScope.ALL, Balance.STICKY, 3, "goto sticky-4"),
        (EndpointScope.LOCAL, Balance.STICKY, 9, "goto outside-sticky-16"),
        (EndpointScope.ALL, Balance.CLIENT, 1021, "goto hash-client-1021"),
        (EndpointScope.LOCAL, Balance.CLIENT_PORT, 1021, "goto outside-hash-client-port-1021"),
    ],
)
def test_a_verdict_leads_to_enough_slots(
    scope: EndpointScope, balance: Balance, count: int, text: str
) -> None:
    verdict = FrontendSpec((), balance, ChainName.DISCARD, "a/b").verdict(scope, count)
    assert verdict == Verdict(text, "a/b")
    slot_chain = slot_chain_of(verdict)
    assert (slot_chain.slots if slot_chain else 0) >= count
    assert slot_chain is None or slot_chain.tries[-1] <= count, "the last try finds an endpoint"
    assert is_sticky(verdict) is (balance is Balance.STICKY and count > 0)


def test_the_sides_of_a_frontend_share_no_slot() -> None:
    numbers = (0, 1, 1020, EndpointScope.LOCAL.base - 1)
    assert len({slot(FrontendSide(scope, KEY), number) for scope in EndpointScope for number in numbers}) == 8


ENDPOINTS = [pack_socket(bytes([10, 0, 0, n]), 8080) for n in range(3)]


@pytest.mark.parametrize("scope", EndpointScope)
@pytest.mark.parametrize(
    ("chain", "missing", "expected"),
    [
        ("lb-3", (), (0, 1, 2)),
        ("lb-2", (), (0, 1)),
        ("sticky-3", (1,), (0, None, 2)),
        ("lb-4", (), (0, 1, 2, None)),
        ("no-endpoints", (), ()),
    ],
)
def test_endpoints_of_a_frontend_side(
    scope: EndpointScope, chain: str, missing: tuple[int, ...], expected: tuple[int | None, ...]
) -> None:
    side, other = (FrontendSide(s, KEY) for s in (scope, *(set(EndpointScope) - {scope})))
    name = endpoints_map(Protocol.TCP)
    applied: Elements = {s.verdicts: {} for s in EndpointScope}
    applied[name] = {slot(side, n): value for n, value in enumerate(ENDPOINTS) if n not in missing}
    applied[scope.verdicts][KEY] = Verdict(f"goto {scope.prefix if chain != 'no-endpoints' else ''}{chain}")
    endpoints = tuple(None if n is None else ENDPOINTS[n] for n in expected)
    assert slot_endpoints(applied, side, Protocol.TCP) == endpoints
    assert slot_endpoints(applied, other, Protocol.TCP) == ()


def test_a_verdict_to_slots_of_the_other_side_has_no_endpoints() -> None:
    """Only another program writes such a verdict. The slots that it leads to belong to the other side."""
    applied: Elements = {s.verdicts: {} for s in EndpointScope}
    applied[endpoints_map(Protocol.TCP)] = {slot(FrontendSide(EndpointScope.ALL, KEY), 0): ENDPOINTS[0]}
    applied[EndpointScope.LOCAL.verdicts][KEY] = Verdict("goto lb-1")
    assert slot_endpoints(applied, FrontendSide(EndpointScope.LOCAL, KEY), Protocol.TCP) == ()


# --- names ---


@pytest.mark.parametrize("family", Family)
def test_every_set_and_every_chain_has_a_name(family: Family) -> None:
    server = bytes([127] * family.width)
    table = skeleton(family, Options(name_servers=(server,)), NO_NUMBERED_CHAINS)
    assert sorted(declaration.name for declaration in table.sets) == sorted(SetName)
    assert sorted(chain.name for chain in table.chains) == sorted(ChainName)


def test_maps_are_named_by_protocol() -> None:
    assert [endpoints_map(protocol) for protocol in Protocol] == [
        *(SetName.ENDPOINTS_TCP, SetName.ENDPOINTS_UDP, SetName.ENDPOINTS_SCTP)
    ]
    assert [affinity_map(protocol) for protocol in Protocol] == [
        *(SetName.AFFINITY_TCP, SetName.AFFINITY_UDP, SetName.AFFINITY_SCTP)
    ]


@pytest.mark.parametrize("timeout", [1, 60, 86400])
def test_a_chain_names_its_timeout(timeout: int) -> None:
    assert remember_timeout(remember_chain(timeout)) == timeout


@pytest.mark.parametrize("chain", ["", "remember", "remember-", "remember-x", "lb-3", "60"])
def test_other_chains_have_no_timeout(chain: str) -> None:
    assert remember_timeout(chain) is None
