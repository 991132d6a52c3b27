"""The simulator, `explain` and the kernel agree for random services, policies, flags and packets.

Each run programs several random states on one node, one after the other, and sends packets in each. The seed
of the run determines everything. A failure shows it.
"""

from __future__ import annotations

import json
from fractions import Fraction
from functools import partial

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.explain.answer import Answer
from kproxy.explain.behind import behind
from kproxy.explain.views import as_json
from kproxy.model import (
    Protocol,
    parse_address,
)
from kproxy.table.layout import (
    PackedSocket,
    SetName,
    affinity_key,
    frontend_key,
    frontend_socket,
    pack_socket,
)
from kproxy.table.simulator import Choice, Fate, Masquerade, Packet, PacketOutcome
from tests.property.random_node import RandomNode
from tests.property.tunnels import Entry

STATES, PACKETS = 2, 125
"""The states of a run, and the packets of a state."""
RUNS, LONG_RUNS = 8, 200


def agrees(outcome: PacketOutcome, packet: Packet, entry: Entry | None, refused: bool) -> bool:
    """Whether the kernel did what the simulator computed."""
    if entry is None:
        return outcome.fate is (Fate.REFUSED if refused else Fate.DROPPED)
    ports = (packet.source_port, packet.port) if packet.protocol else (0, 0)
    masqueraded = entry.client != (packet.source, ports[0])
    if entry.endpoint == pack_socket(packet.destination, ports[1]) and outcome.fate is Fate.UNTOUCHED:
        return not masqueraded
    return (entry.endpoint, masqueraded) in {(c.endpoint, c.masqueraded) for c in outcome.choices}


def port_kept(outcome: PacketOutcome, packet: Packet, entry: Entry | None) -> bool:
    """Whether it looks as if the packet was not masqueraded, but should have been.

    That happens by chance too: 1 of 64,512 random ports is the one that the packet had.
    """
    if entry is None or not packet.protocol or entry.client != (packet.source, packet.source_port):
        return False
    return (entry.endpoint, True) in {(c.endpoint, c.masqueraded) for c in outcome.choices}


def as_printed(found: Answer) -> PacketOutcome:
    """Return what `-o json` says of the fate and the endpoints."""
    printed = json.loads(as_json(found, behind(found)))
    choices = (
        Choice(
            parse_socket(each["endpoint"]),
            Fraction(each["probability"]).limit_denominator(1000),
            each["masquerade"] and Masquerade(each["masquerade"]),
        )
        for each in printed["endpoints"]
    )
    return found.outcome._replace(fate=Fate(printed["fate"]), choices=tuple(choices))


def rounded(outcome: PacketOutcome) -> PacketOutcome:
    """Round the probabilities as `as_printed` does."""
    choices = (
        each._replace(probability=Fraction(float(each.probability)).limit_denominator(1000))
        for each in outcome.choices
    )
    return outcome._replace(choices=tuple(choices))


def parse_socket(text: str) -> PackedSocket:
    """Parse `10.0.0.1:80`."""
    address, _, port = text.rpartition(":")
    return pack_socket(parse_address(address.strip("[]")), int(port))


def run(seed: int) -> tuple[list[str], dict[Fate, int]]:
    """Return the disagreements of simulator and kernel, and the number of packets with each fate."""
    disagreements: list[str] = []
    kept: list[str] = []
    fates = dict.fromkeys(Fate, 0)
    node = RandomNode(seed)
    for number, state in enumerate(node.states(STATES)):
        affinity = {protocol: state.affinity(protocol) for protocol in (*Protocol, None)}
        first = 20000 + number * PACKETS
        packets = [node.draw.packet(state.services, first + offset) for offset in range(PACKETS)]
        refusals = [node.tunnels.send(packet) for packet in packets]
        entries = node.tunnels.connections()
        for packet, refused in zip(packets, refusals, strict=True):
            remembered = affinity[packet.protocol]
            outcome = state.table.first_packet(packet, remembered)
            fates[outcome.fate] += 1
            said = as_printed(state.explained.answer(packet, remembered))
            entry = entries.get((packet.protocol or "ping", packet.source_port))
            if said != rounded(outcome) or not agrees(outcome, packet, entry, refused):
                where = f"seed {seed}, state {number}: {packet} {node.options}"
                chance = said == rounded(outcome) and port_kept(outcome, packet, entry)
                (kept if chance else disagreements).append(
                    f"{where} {outcome} explain: {said} {entry} {refused=}"
                )
            if packet.protocol and entry and outcome.fate is Fate.TRANSLATED:
                key = frontend_key(packet.destination, packet.protocol, packet.port)
                if key in state.table.elements[SetName.AFFINITY_RULES]:
                    remembered[affinity_key(packet.source, frontend_socket(key))] = entry.endpoint
    return disagreements + (kept if len(kept) > 1 else []), fates


@pytest.mark.lab
@pytest.mark.parametrize("seed", range(RUNS))
def test_simulator_and_kernel_agree(seed: int) -> None:
    disagreements, fates = in_fresh_namespace(partial(run, seed))
    assert disagreements == []
    assert sum(fates.values()) == STATES * PACKETS


@pytest.mark.lab
@pytest.mark.long
def test_simulator_and_kernel_agree_on_many_packets() -> None:
    packets = 0
    for seed in range(RUNS, RUNS + LONG_RUNS):
        disagreements, fates = in_fresh_namespace(partial(run, seed))
        assert disagreements == []
        packets += sum(fates.values())
    assert packets >= 50_000
