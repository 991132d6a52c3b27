"""The question of explain and trace: which connection, and the snapshot that it is about."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple

from kproxy.cli.output import print_problems
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.explain.question import Asker, Question, words_of
from kproxy.explain.tables import simulator
from kproxy.model import Address
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints
from kproxy.show.snapshot import Snapshot
from kproxy.table.simulator import Simulator


class Asked(NamedTuple):
    """What a command asks about."""

    question: Question
    snapshot: Snapshot
    """At least what concerns the question."""
    host: Set[Address]
    """The addresses of this host; () without the kernel."""

    @property
    def table(self) -> Simulator:
        """The table as it is desired."""
        return simulator(self.snapshot, self.question.packet.destination, self.host)


def ask(settings: Settings, operands: Sequence[str], kernel: bool) -> Asked:
    """Parse FROM and TO, and print what is wrong with the input. Raises CommandLineError and KproxyError.

    With `kernel`, the addresses of this host are read.
    """
    sender, destination = operands
    with progress() as activity:
        snapshot = look_up(settings, activity, about=words_of(sender, destination, settings.namespace))
    print_problems(complaints(snapshot))
    host = _local_addresses() if kernel else frozenset()
    asker = Asker(snapshot, settings.namespace, settings.interface, settings.source_port, host)
    return Asked(asker.question(sender, destination), snapshot, host)


def _local_addresses() -> frozenset[Address]:
    from kproxy.kernel.host import local_addresses  # not at the top: manifests need no kernel

    return local_addresses()
