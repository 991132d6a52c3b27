"""`kproxy get`: objects in kubectl's tables. Changes nothing, and needs root only to ask a running kproxy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from kproxy.cli import options
from kproxy.cli.kinds import add_targets, namespace, wanted
from kproxy.control.lookup import look_up
from kproxy.settings.settings import Settings
from kproxy.show import tables as views
from kproxy.show.complaints import complaints
from kproxy.show.kinds import KINDS, Found, Wanted, find, followed, nothing

OUTPUTS = """-o:
  wide   services: the selector, too; pods: IP and NODE, too; ingresses: the whole address
  name   service/web, one line each
  yaml, json
         the object as kproxy uses it, of the fields that it reads (no other annotations),
         defaults filled in, with the ClusterIPs and node ports that are allocated, and the
         slices and endpoints that selectors and Endpoints make; an Ingress as one of
         networking.k8s.io/v1

AGE is by creationTimestamp. READY of a pod counts containers, as probes found them or as its
status says; else all are or none. What no manifest says is <unknown>.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "get",
        help="list services, endpoints, pods, endpointslices or ingresses",
        description="List objects as kubectl does, with what they are given: addresses, node ports,\n"
        "endpoints. They are those of the running kproxy, or with -f those of manifests; allocations\n"
        "under --state-dir are used, not changed.",
        epilog=OUTPUTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_targets(parser, KINDS)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FORMAT",
        choices=("wide", "yaml", "json", "name"),
        default=None,
        help="see below",
    )
    parser.add_argument(
        "--show-labels", action="store_true", default=False, help="in the tables' last column"
    )
    options.add_view(parser)
    parser.set_defaults(run=run)


def run(chosen: Settings, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    asked = wanted(arguments, KINDS)
    given = look_up(chosen)
    options.print_problems(complaints(given))
    asked, unfollowed = followed(asked, given)
    objects = views.objects(given)
    found = [(each, find(objects, each, namespace(arguments))) for each in asked]
    if found:
        show(arguments, found)
    for sentence in unfollowed:
        print(sentence, file=sys.stderr)
    missing = [sentence for _, of_kind in found for sentence in of_kind.missing]
    for sentence in missing:
        print(f"kproxy: {sentence}", file=sys.stderr)
    return 1 if given.problems or unfollowed or missing else 0


def show(arguments: argparse.Namespace, found: Sequence[tuple[Wanted, Found]]) -> None:
    """Print them in the form that was asked for."""
    if arguments.output in ("yaml", "json"):
        made = [asked.kind.manifest(item) for asked, of_kind in found for item in of_kind.items]
        named = sum(len(asked.names) for asked, _ in found)
        if named and not made:
            return
        whole = made[0] if named == 1 else {"apiVersion": "v1", "kind": "List", "items": made}
        if arguments.output == "json":
            print(json.dumps(whole, indent=4))
        else:
            print(yaml.safe_dump(whole, sort_keys=False), end="")
    elif arguments.output == "name":
        for asked, of_kind in found:
            for item in of_kind.items:
                print(f"{asked.kind.singular}/{asked.kind.name(item).name}")
    else:
        tables = [table(arguments, asked, of_kind.items, len(found) > 1) for asked, of_kind in found]
        print("\n".join(filter(None, tables)), end="")
        if not any(of_kind.items or asked.names for asked, of_kind in found):
            plurals = " or ".join(asked.plural for asked, _ in found)
            print(nothing(plurals, namespace(arguments)), file=sys.stderr)


def table(arguments: argparse.Namespace, asked: Wanted, items: Sequence[Any], several: bool) -> str:
    """A table of one kind, "" for none; if it is one of several, names have the kind before them."""
    if not items:
        return ""
    kind = asked.kind
    heading, *rows = kind.rows(items, ages(datetime.now(UTC)), arguments.output == "wide")
    if several:
        rows = [[f"{kind.singular}/{row[0]}", *row[1:]] for row in rows]
    if arguments.all_namespaces:
        heading = ["NAMESPACE", *heading]
        rows = [[kind.name(item).namespace, *row] for item, row in zip(items, rows, strict=True)]
    if arguments.show_labels:
        heading = [*heading, "LABELS"]
        rows = [[*row, views.labels(kind.labels(item))] for item, row in zip(items, rows, strict=True)]
    return views.table([heading, *rows])


def ages(now: datetime) -> views.Age:
    """How old something is at `now`."""

    def age(created: str) -> str:
        try:
            then = datetime.fromisoformat(created)
        except ValueError:
            return views.UNKNOWN
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        return views.duration(int((now - then).total_seconds()))

    return age
