"""`kproxy get`: objects in kubectl's tables. Changes nothing, and needs root only to ask a running kproxy."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import yaml

from kproxy.cli import options
from kproxy.model import NamespacedName
from kproxy.problems import UsageError
from kproxy.standalone import views


class Kind(NamedTuple):
    """What can be asked for."""

    aliases: tuple[str, ...]
    singular: str
    """As `-o name` writes it."""
    select: Callable[[views.Objects], Sequence[Any]]
    name: Callable[[Any], NamespacedName]
    rows: Callable[[Iterable[Any], views.Age, bool], list[list[str]]]
    manifest: Callable[[Any], dict[str, Any]] | None = None


KINDS = {
    "services": Kind(
        ("service", "svc"),
        "service",
        lambda objects: objects.services,
        lambda service: service.name,
        views.service_rows,
        views.service_manifest,
    ),
    "endpoints": Kind(
        ("ep",),
        "endpoints",
        lambda objects: objects.endpoints,
        lambda endpoints: endpoints.name,
        views.endpoints_rows,
    ),
    "pods": Kind(("pod", "po"), "pod", lambda objects: objects.pods, lambda pod: pod.name, views.pod_rows),
    "endpointslices": Kind(
        ("endpointslice",),
        "endpointslice.discovery.k8s.io",
        lambda objects: objects.slices,
        lambda slice_: NamespacedName(slice_.service.namespace, slice_.name),
        views.slice_rows,
        views.slice_manifest,
    ),
}

OUTPUTS = """-o:
  wide   services: the selector, too; pods: IP and NODE, too
  name   service/web, one line each
  yaml, json
         services and endpointslices: the object as kproxy uses it, of the fields that it reads
         (no other labels or annotations), defaults filled in, with the ClusterIPs and node
         ports that are allocated, and the slices that selectors and Endpoints make

AGE is by creationTimestamp. READY of a pod counts containers; where its status does not say
which are ready, all are or none. What no manifest says is <unknown>.
"""


def canonical(kinds: Iterable[str]) -> Callable[[str], str]:
    """A converter of what users call a kind to its name, for those of `kinds`."""
    names = {alias: kind for kind in kinds for alias in (kind, *KINDS[kind].aliases)}

    def kind(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return names[text]

    return kind


def add_namespace(parser: argparse.ArgumentParser) -> None:
    """Where to look."""
    parser.add_argument(
        "-n", "--namespace", metavar="NAMESPACE", default="default", help="of the objects (default: default)"
    )


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "get",
        help="list services, endpoints, pods or endpointslices",
        description="List objects as kubectl does, with what they are given: addresses, node ports,\n"
        "endpoints. They are those of the running kproxy, or with -f those of manifests; allocations\n"
        "under --state-dir are used, not changed.",
        epilog=OUTPUTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "kind",
        metavar="KIND",
        type=canonical(KINDS),
        help="services, endpoints, pods, endpointslices; svc, ep, po",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="only these; right behind KIND")
    add_namespace(parser)
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of all namespaces")
    parser.add_argument(
        "-o", "--output", metavar="FORMAT", choices=("wide", "yaml", "json", "name"), help="see below"
    )
    options.add_view(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    kind = KINDS[arguments.kind]
    if arguments.all_namespaces and arguments.names:
        raise UsageError("A name belongs to one namespace: give NAME or --all-namespaces.")
    if arguments.output in ("yaml", "json") and kind.manifest is None:
        raise UsageError(
            f"-o {arguments.output} shows services and endpointslices, not {arguments.kind}.",
        )
    given = options.snapshot(arguments)
    options.print_problems(given.problems)
    every = kind.select(views.objects(given))
    if arguments.names:
        wanted = {NamespacedName(arguments.namespace, name) for name in arguments.names}
        found = [item for item in every if kind.name(item) in wanted]
    else:
        found = [
            i for i in every if arguments.all_namespaces or kind.name(i).namespace == arguments.namespace
        ]
    show(arguments, kind, found)
    known = [kind.name(item) for item in every]
    missing = [n for n in arguments.names if NamespacedName(arguments.namespace, n) not in known]
    for name in missing:
        error = not_found(arguments.kind, NamespacedName(arguments.namespace, name), known)
        print(f"kproxy: {error}", file=sys.stderr)
    return 1 if given.problems or missing else 0


def not_found(kind: str, wanted: NamespacedName, known: Iterable[NamespacedName]) -> str:
    """There is none of this name; where there are such."""
    elsewhere = ", ".join(sorted(other.namespace for other in known if other.name == wanted.name))
    hint = f" There is one in {elsewhere}: see -n." if elsewhere else ""
    return f"{kind} {wanted.name!r} not found in namespace {wanted.namespace}.{hint}"


def show(arguments: argparse.Namespace, kind: Kind, found: Sequence[Any]) -> None:
    """Print it in the form that was asked for."""
    if arguments.output in ("yaml", "json"):
        assert kind.manifest is not None
        manifests = [kind.manifest(item) for item in found]
        if arguments.names and not manifests:
            return
        alone = len(arguments.names) == 1
        whole = manifests[0] if alone else {"apiVersion": "v1", "kind": "List", "items": manifests}
        if arguments.output == "json":
            print(json.dumps(whole, indent=4))
        else:
            print(yaml.safe_dump(whole, sort_keys=False), end="")
    elif arguments.output == "name":
        for item in found:
            print(f"{kind.singular}/{kind.name(item).name}")
    elif found:
        rows = kind.rows(found, ages(datetime.now(UTC)), arguments.output == "wide")
        if arguments.all_namespaces:
            spaces = ["NAMESPACE", *(kind.name(item).namespace for item in found)]
            rows = [[space, *row] for space, row in zip(spaces, rows, strict=True)]
        print(views.table(rows), end="")
    elif not arguments.names:
        where = "" if arguments.all_namespaces else f" in namespace {arguments.namespace}"
        print(f"No {arguments.kind} found{where}.", file=sys.stderr)


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
