"""`kproxy describe`: services, their endpoints, pods or ingresses at length. Changes nothing."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from kproxy.cli import options
from kproxy.cli.kinds import add_targets, namespace, wanted
from kproxy.control.lookup import look_up
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints
from kproxy.show.describe.context import Context
from kproxy.show.describe.endpoints import describe_endpoints
from kproxy.show.describe.ingress import describe_ingress
from kproxy.show.describe.pod import describe_pod
from kproxy.show.describe.service import describe_service
from kproxy.show.kinds import find, followed, nothing

DESCRIPTIONS: dict[str, Callable[[Any, Context], str]] = {
    "services": describe_service,
    "endpoints": describe_endpoints,
    "pods": describe_pod,
    "ingresses": describe_ingress,
}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "describe",
        help="show services, their endpoints, pods or ingresses at length",
        description="Show a service as kubectl does, then its frontends on this node with what each leads "
        "to, and what is wrong with it; or its endpoints; or a pod, with what its readiness probes found and "
        "the services that it is in; or an ingress. As the running kproxy knows them, "
        "or with -f as manifests say; allocations under --state-dir are used, not changed.",
    )
    add_targets(parser, DESCRIPTIONS)
    options.add_view(parser)
    parser.set_defaults(run=run)


def run(chosen: Settings, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    asked = wanted(arguments, DESCRIPTIONS)
    given = look_up(chosen)
    asked, unfollowed = followed(asked, given)
    context = Context(given, time.time())
    shown: list[str] = []
    missing: list[str] = []
    about: set[str] = set()
    for each in asked:
        found = find(context.objects, each, namespace(arguments))
        missing += found.missing
        shown += (DESCRIPTIONS[each.plural](item, context) for item in found.items)
        about |= {f"{each.kind.kind} {each.kind.name(item)}" for item in found.items}
    options.print_problems(complaints(given, about))
    print("\n\n".join(shown), end="")
    for sentence in missing:
        print(f"kproxy: {sentence}", file=sys.stderr)
    for sentence in unfollowed:
        print(sentence, file=sys.stderr)
    if not shown and not missing and asked:
        plurals = " or ".join(each.plural for each in asked)
        print(nothing(plurals, namespace(arguments)), file=sys.stderr)
    return 1 if given.problems or unfollowed or missing else 0
