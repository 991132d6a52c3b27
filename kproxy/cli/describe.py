"""`kproxy describe`: one service or its endpoints at length. Changes nothing."""

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
        "to, and what is wrong with it; or its endpoints: as the running kproxy knows them, or with -f as "
        "manifests say. Allocations under --state-dir are used, not changed.",
    )
    parser.add_argument(
        "kind", metavar="KIND", type=canonical(OBJECTS), help="service (svc) or endpoints (ep)"
    )
    parser.add_argument("name", metavar="NAME", help="of the service")
    add_namespace(parser)
    options.add_view(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    given = options.snapshot(arguments)
    objects = views.objects(given)
    kind, wanted = KINDS[arguments.kind], NamespacedName(arguments.namespace, arguments.name)
    known = {kind.name(item): item for item in kind.select(objects)}
    if wanted not in known:
        options.print_problems(given.problems)
        raise KproxyError(not_found(arguments.kind, wanted, known))
    about = f"{OBJECTS[arguments.kind]} {wanted}"
    failures = [failure for failure in given.last_errors if failure.object in (about, "")]
    own = [problem for problem in given.problems if problem.object == about]
    options.print_problems(problem for problem in given.problems if problem.object != about)
    if arguments.kind == "services":
        print(describe_service(known[wanted], objects, given.frontends, map(_text, own), failures), end="")
    else:
        print(describe_endpoints(known[wanted], map(_text, own)), end="")
    return 1 if given.problems else 0


def _text(problem: Problem) -> str:
    """Without the object, which is known here."""
    return str(problem._replace(object=""))
