"""`kproxy explain`: say what the tables do with a connection, and why. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from kproxy.cli.output import warn, write_text
from kproxy.cli.question import Asked, ask
from kproxy.explain.answer import answer
from kproxy.explain.behind import behind
from kproxy.explain.views import Kernel, as_json, text
from kproxy.problems import HostError
from kproxy.settings.settings import Settings
from kproxy.table.layout import TABLE


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    with_kernel = settings.kernel or not settings.manifests
    asked = ask(settings, operands, with_kernel)
    kernel = _kernel(asked, settings.rules) if with_kernel else None
    found = answer(asked.table, asked.question, asked.snapshot, kernel.affinity if kernel else None)
    details = behind(found, kernel.handles if kernel else None) if settings.rules else None
    view = as_json if settings.output == "json" else text
    write_text(view(found, details, kernel))
    return 0


def _kernel(asked: Asked, rules: bool) -> Kernel | None:
    """Return what the kernel's table does; None, with a message, if it cannot be read."""
    from kproxy.kernel.live_table import LiveTable, rule_handles  # not at the top: manifests need no kernel
    from kproxy.kernel.netlink.socket import Netlink

    table, question = asked.table, asked.question
    try:
        with Netlink() as netlink:
            live = LiveTable(netlink, table.family)
            if not live.exists():
                warn(f"The kernel has no table {table.family} {TABLE}.")
                return None
            affinity, expires = live.affinity_of(question.packet)
            found = answer(table._replace(elements=live), question, asked.snapshot, affinity)
            handles = rule_handles(netlink, table.family)
            return Kernel(found, behind(found, handles) if rules else None, handles, affinity, expires)
    except HostError as error:
        warn(f"The kernel's table is not compared: {error.full}")
        return None
