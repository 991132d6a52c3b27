"""`kproxy graph`: draw Services, their frontends and endpoints. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from kproxy.cli.output import print_problems, write_text
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.explain.question import service_name
from kproxy.model import Service
from kproxy.picture.dot import dot
from kproxy.picture.services import Services
from kproxy.picture.svg import svg
from kproxy.problems import KproxyError
from kproxy.settings.settings import Origin, Settings
from kproxy.show.complaints import complaints, is_incomplete
from kproxy.show.snapshot import Snapshot

MOST = 500
"""The maximum number of Services in a graph."""
FORMATS = {"": svg, "svg": svg, "dot": dot}


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    with progress() as activity:
        snapshot = look_up(settings, activity)
    print_problems(complaints(snapshot))
    services = Services(snapshot)
    chosen = _chosen(snapshot, settings, operands)
    write_text(FORMATS[settings.output]([services.view(service) for service in chosen], _title(snapshot)))
    return 1 if is_incomplete(snapshot, settings.strict) else 0


def _chosen(snapshot: Snapshot, settings: Settings, operands: Sequence[str]) -> list[Service]:
    """Return the Services to draw, by name. Raises KproxyError if one is missing or there are too many."""
    services = snapshot.inventory.owners
    names = [service_name(operand, settings.namespace) for operand in operands]
    missing = [name for name in names if name not in services]
    if missing:
        raise KproxyError(f"Service {missing[0]} not found.")
    one_namespace = settings.origin("namespace") is not Origin.DEFAULT
    known = sorted(n for n in services if not one_namespace or n.namespace == settings.namespace)
    chosen = list(dict.fromkeys(names)) or known
    if len(chosen) > MOST:
        raise KproxyError(
            f"{len(chosen)} Services are too many for a graph (at most {MOST}).",
            "Name some Services, or a namespace with -n.",
        )
    return [services[name] for name in chosen]


def _title(snapshot: Snapshot) -> str:
    return f"Services on node {snapshot.node.name}" if snapshot.node.name else "Services"
