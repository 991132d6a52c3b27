"""`kproxy describe`: one service or its endpoints at length. Needs no root and changes nothing."""

from __future__ import annotations

import argparse

from kproxy.cli import options
from kproxy.cli.get import KINDS, add_namespace, canonical, not_found
from kproxy.model import NamespacedName
from kproxy.problems import KproxyError, Problem
from kproxy.standalone import views
from kproxy.standalone.descriptions import describe_endpoints, describe_service

OBJECTS = {"services": "Service", "endpoints": "Endpoints"}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "describe",
        help="show one service, or its endpoints, at length",
        description="Show a service as kubectl does, then its frontends on this node with what each leads "
        "to, and what is wrong with it; or its endpoints. Allocations under --state-dir are used, not "
        "changed.",
    )
    parser.add_argument(
        "kind", metavar="KIND", type=canonical(OBJECTS), help="service (svc) or endpoints (ep)"
    )
    parser.add_argument("name", metavar="NAME", help="of the service")
    add_namespace(parser)
    options.add_input(parser)
    options.add_node(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    state, outcome = options.resolve_input(arguments)
    objects = views.objects(state, outcome.services)
    kind, wanted = KINDS[arguments.kind], NamespacedName(arguments.namespace, arguments.name)
    known = {kind.name(item): item for item in kind.select(objects)}
    if wanted not in known:
        options.print_problems(outcome.problems)
        raise KproxyError(not_found(arguments.kind, wanted, known))
    about = f"{OBJECTS[arguments.kind]} {wanted}"
    own = [problem for problem in outcome.problems if problem.object == about]
    options.print_problems(problem for problem in outcome.problems if problem.object != about)
    if arguments.kind == "services":
        print(describe_service(known[wanted], objects, outcome.frontends, map(_text, own)), end="")
    else:
        print(describe_endpoints(known[wanted], map(_text, own)), end="")
    return 1 if outcome.problems else 0


def _text(problem: Problem) -> str:
    """Without the object, which is known here."""
    return str(problem._replace(object=""))
