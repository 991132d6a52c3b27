"""`kproxy explain`: say what the tables do with a connection, and why. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from kproxy.cli.output import print_problems, warn, write_text
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.explain.answer import Answer, answer
from kproxy.explain.question import Asker, words_of
from kproxy.explain.tables import simulator
from kproxy.explain.views import Kernel, as_json, text
from kproxy.problems import CommandLineError, HostError
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints
from kproxy.show.snapshot import Snapshot
from kproxy.table.keys import PackedSocket, affinity_key, join_socket, pack_port
from kproxy.table.names import TABLE, affinity_map


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    sender, destination = operands
    if settings.output not in ("", "json"):
        raise CommandLineError(f"--output: explain prints text or json, not {settings.output}.")
    with progress() as activity:
        snapshot = look_up(settings, activity, about=words_of(sender, destination, settings.namespace))
    asker = Asker(snapshot, settings.namespace, settings.interface, settings.source_port)
    question = asker.question(sender, destination)
    found = answer(simulator(snapshot, question.packet.destination), question, snapshot)
    kernel = _kernel(found, snapshot) if settings.kernel or not settings.manifests else None
    print_problems(complaints(snapshot))
    view = as_json if settings.output == "json" else text
    write_text(view(found, settings.rules, kernel))
    return 0


def _kernel(desired: Answer, snapshot: Snapshot) -> Kernel | None:
    """Return what the kernel's table does; None, with a message, if it cannot be read."""
    from kproxy.kernel.live_table import LiveTable  # not at the top: manifests need no kernel
    from kproxy.kernel.netlink.socket import Netlink

    table, question = desired.table, desired.question
    packet = question.packet
    try:
        with Netlink() as netlink:
            live = LiveTable(netlink, table.family)
            if not live.exists():
                warn(f"The kernel has no table {table.family} {TABLE}.")
                return None
            found = answer(table._replace(elements=live), question, snapshot)
            same = _effect(found) == _effect(desired)
            if packet.protocol is None:
                return Kernel(found, same, None, None)
            entries = live[affinity_map(packet.protocol)]
            frontend = join_socket(packet.destination, pack_port(packet.port))
            key = affinity_key(packet.source, frontend)
            remembered = entries.get(key)
            endpoint = PackedSocket(remembered) if isinstance(remembered, bytes) else None
            return Kernel(found, same, endpoint, entries.expiration(key))
    except HostError as error:
        warn(f"The kernel's table is not compared: {error.full}")
        return None


def _effect(found: Answer) -> object:
    """Return what two tables have to agree on."""
    return found.outcome.fate, found.outcome.reason, found.outcome.choices
