"""`kproxy describe`: services, their endpoints, pods or ingresses at length. Changes nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from kproxy.cli.output import print_problems, warn, write
from kproxy.control.lookup import look_up
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints
from kproxy.show.describe.context import Context
from kproxy.show.describe.endpoints import describe_endpoints, describe_slice
from kproxy.show.describe.ingress import describe_ingress
from kproxy.show.describe.pod import describe_pod
from kproxy.show.describe.service import describe_service
from kproxy.show.kinds import find, followed, nothing, parse_targets

DESCRIPTIONS: dict[str, Callable[[Any, Context], str]] = {
    "services": describe_service,
    "endpoints": describe_endpoints,
    "pods": describe_pod,
    "endpointslices": describe_slice,
    "ingresses": describe_ingress,
}


def run(chosen: Settings, operands: Sequence[str]) -> int:
    """Returns the exit status."""
    namespace = None if chosen.all_namespaces else chosen.namespace
    asked = parse_targets(operands, DESCRIPTIONS, namespace)
    given = look_up(chosen)
    asked, unfollowed = followed(asked, given)
    context = Context(given, time.time())
    shown: list[str] = []
    missing: list[str] = []
    about: set[str] = set()
    for each in asked:
        found = find(context.objects, each, namespace)
        missing += found.missing
        shown += (DESCRIPTIONS[each.plural](item, context) for item in found.items)
        about |= {f"{each.kind.kind} {each.kind.name(item)}" for item in found.items}
    print_problems(complaints(given, about))
    write("\n\n".join(shown))
    for sentence in missing:
        warn(sentence)
    for sentence in unfollowed:
        print(sentence, file=sys.stderr)
    if not shown and not missing and asked:
        print(nothing(" or ".join(each.plural for each in asked), namespace), file=sys.stderr)
    return 1 if given.problems or unfollowed or missing else 0
