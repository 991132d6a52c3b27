"""`kproxy describe`: print descriptions of objects. Changes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from kproxy.cli.output import note, print_problems, warn, write_text
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints, is_incomplete
from kproxy.show.describe.context import Context
from kproxy.show.describe.endpoints import describe_endpoints, describe_slice
from kproxy.show.describe.gateways import (
    describe_class,
    describe_gateway,
    describe_grant,
    describe_route,
)
from kproxy.show.describe.ingress import describe_ingress
from kproxy.show.describe.node import describe_node
from kproxy.show.describe.pod import describe_pod
from kproxy.show.describe.service import describe_service
from kproxy.show.describe.workload import describe_workload
from kproxy.show.kinds import WORKLOAD_KINDS
from kproxy.show.query import parse_query

DESCRIPTIONS: dict[str, Callable[[Any, Context], str]] = {
    "services": describe_service,
    "endpoints": describe_endpoints,
    "pods": describe_pod,
    "endpointslices": describe_slice,
    "ingresses": describe_ingress,
    "nodes": describe_node,
    **dict.fromkeys(WORKLOAD_KINDS, describe_workload),
    "gatewayclasses": describe_class,
    "gateways": describe_gateway,
    "httproutes": describe_route,
    "tcproutes": describe_route,
    "udproutes": describe_route,
    "referencegrants": describe_grant,
}


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    namespace = None if settings.all_namespaces else settings.namespace
    query = parse_query(operands, DESCRIPTIONS, namespace, settings.selector)
    with progress() as activity:
        snapshot = look_up(settings, activity)
    query, unfollowed = query.followed(snapshot)
    context = Context(snapshot, time.time())
    found = query.find(context.objects)
    described = [(each.requested, item) for each in found for item in each.items]
    about = {f"{requested.kind.kind} {requested.kind.name(item)}" for requested, item in described}
    print_problems(complaints(snapshot, about))
    write_text("\n\n".join(DESCRIPTIONS[requested.plural](item, context) for requested, item in described))
    missing = [sentence for each in found for sentence in each.missing]
    for sentence in missing:
        warn(sentence)
    for sentence in (*unfollowed, *query.notes(snapshot)):
        note(sentence)
    if found and not described and not missing:
        note(query.nothing)
    return 1 if is_incomplete(snapshot, settings.strict) or unfollowed or missing else 0
