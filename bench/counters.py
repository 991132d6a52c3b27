"""`python -m bench.counters`: what the counters of endpoints cost the kernel.

It adds endpoints to the map of a new table in one transaction: with counters and without, in turn. Memory is
what /proc/meminfo has more after it, so other programs affect it. `Percpu` grows less than the counters take,
as long as there is room in its pages. The transaction takes several times as long while any program, such as
a `kproxy run`, receives notifications of nftables.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from msgspec import Struct
from netns_lab.netns import in_fresh_namespace
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.arguments import Arguments
from bench.process import exits_with_status
from bench.report import megabytes, seconds
from bench.suite import machine, publish
from kproxy.kernel.netlink.core.structure import table_removal, whole_table
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family, Protocol
from kproxy.nft.transaction import Transaction
from kproxy.reconcile.dataplane import transaction_messages
from kproxy.table.layout import TABLE, endpoints_map, pack_socket, slot_keys
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, Options, skeleton

ENDPOINTS, OF_EACH, ROUNDS = 250_000, 50, 3
FREED = 3
"""The seconds until the kernel has freed a removed table."""
COUNTER_BYTES = 16
"""struct nft_counter of Linux: the numbers of bytes and packets."""
CPUS = 128
"""For how many CPUs the memory is also computed."""


class Cost(NamedTuple):
    """What a map costs."""

    cpu: float
    """Of the transaction, in seconds."""
    per_cpu: float
    """Bytes, as `slab`."""
    slab: float


class Figures(Struct, frozen=True):
    """The medians of some rounds."""

    counted: bool
    endpoints: int
    cost: Cost
    computed: int
    """The bytes of the counters on a machine with CPUS possible CPUs."""


def memory() -> tuple[int, int]:
    """Return the bytes of Percpu and Slab."""
    found = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    per_cpu, slab = (1024 * int(found[name].split()[0]) for name in ("Percpu", "Slab"))
    return per_cpu, slab


def elements(endpoints: int) -> Transaction:
    """Return the addition of endpoints, of frontends with OF_EACH of them."""
    todo = Transaction()
    for number in range(endpoints // OF_EACH):
        frontend = pack_socket((0x0A600000 + number).to_bytes(4, "big"), 80)
        first = 0x0AF40000 + number * OF_EACH
        sockets = (pack_socket((first + slot).to_bytes(4, "big"), 8080) for slot in range(OF_EACH))
        todo.add[endpoints_map(Protocol.TCP)].update(
            zip(slot_keys(frontend, 0, OF_EACH), sockets, strict=True)
        )
    return todo


def add(endpoints: int, counted: bool) -> Cost:
    """Add endpoints to a new table in this network namespace."""
    with Netlink() as netlink:
        netlink.commit(whole_table(skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS, counted)))
        messages = transaction_messages(Family.IPV4, elements(endpoints))
        before, begun = memory(), time.process_time()
        netlink.commit(messages)
        cpu = time.process_time() - begun
        per_cpu, slab = (now - then for now, then in zip(memory(), before, strict=True))
        netlink.commit([table_removal(Family.IPV4, TABLE)])
    time.sleep(FREED)
    return Cost(cpu, per_cpu, slab)


def measure(endpoints: int, rounds: int) -> Iterator[Figures]:
    """Yield the figures with counters, then those without."""
    found: dict[bool, list[Cost]] = {True: [], False: []}
    for counted in rounds * (True, False):
        found[counted].append(in_fresh_namespace(partial(add, endpoints, counted)))
    for counted, costs in found.items():
        middle = Cost(*map(median, zip(*costs, strict=True)))
        yield Figures(counted, endpoints, middle, endpoints * COUNTER_BYTES * CPUS * counted)


def report(results: Sequence[Figures], title: str, machine: str) -> Group:
    """Return the printable report."""
    table = Table("", "CPU", "Percpu", "Slab", f"counters on {CPUS} CPUs (computed)", title=title)
    for each in results:
        sizes = map(megabytes, (int(each.cost.per_cpu), int(each.cost.slab), each.computed))
        table.add_row("with counters" if each.counted else "without", seconds(each.cost.cpu), *sizes)
    return Group(table, Text(f"{machine}. Medians.", style="dim"))


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.counters", __doc__)
    parser.number("--endpoints", ENDPOINTS)
    parser.number("--rounds", ROUNDS)
    parser.json()
    asked = parser.parsed_by_root()
    with exits_with_status():
        results = list(measure(asked.endpoints, asked.rounds))
    title = f"a map of {asked.endpoints:,} endpoints"
    publish(report(results, title, machine()), 0, asked.json, title=title, results=results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
