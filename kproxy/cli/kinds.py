"""Which objects a command is about: `svc web`, `svc/web pod/a`, `svc,ep`, as kubectl reads them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from kproxy.model import NamespacedName
from kproxy.problems import UsageError
from kproxy.show import manifests
from kproxy.show import tables as views
from kproxy.show.tables import Objects


class Kind(NamedTuple):
    """What can be asked for."""

    aliases: tuple[str, ...]
    singular: str
    """As `-o name` writes it."""
    kind: str
    """As a Problem writes it."""
    select: Callable[[Objects], Sequence[Any]]
    rows: Callable[[Iterable[Any], views.Age, bool], list[list[str]]]
    manifest: Callable[[Any], dict[str, Any]]
    name: Callable[[Any], NamespacedName] = attrgetter("name")
    labels: Callable[[Any], dict[str, str]] = attrgetter("labels")


KINDS = {
    "services": Kind(
        ("svc",),
        "service",
        "Service",
        attrgetter("services"),
        views.service_rows,
        manifests.service_manifest,
    ),
    "endpoints": Kind(
        ("ep",),
        "endpoints",
        "Endpoints",
        attrgetter("endpoints"),
        views.endpoints_rows,
        manifests.endpoints_manifest,
    ),
    "pods": Kind(("po",), "pod", "Pod", attrgetter("pods"), views.pod_rows, manifests.pod_manifest),
    "endpointslices": Kind(
        ("endpointslice",),
        "endpointslice.discovery.k8s.io",
        "EndpointSlice",
        attrgetter("slices"),
        views.slice_rows,
        manifests.slice_manifest,
        name=lambda slice_: NamespacedName(slice_.service.namespace, slice_.name),
        labels=manifests.slice_labels,
    ),
    "ingresses": Kind(
        ("ingress", "ing"),
        "ingress.networking.k8s.io",
        "Ingress",
        attrgetter("ingresses"),
        views.ingress_rows,
        manifests.ingress_manifest,
    ),
}


class Wanted(NamedTuple):
    """Objects of one kind."""

    plural: str
    names: tuple[str, ...]
    """(): all of the namespace."""

    @property
    def kind(self) -> Kind:
        """Of what kind they are."""
        return KINDS[self.plural]


def add_targets(parser: argparse.ArgumentParser, kinds: Collection[str]) -> None:
    """What to show, and where to look."""
    every = ", ".join(f"{plural} ({KINDS[plural].aliases[-1]})" for plural in kinds)
    parser.add_argument(
        "targets",
        metavar="WHAT",
        nargs="+",
        help=f"KIND for all of them (several with commas), KIND NAME..., or KIND/NAME...; a KIND is {every}",
    )
    parser.add_argument(
        "-n", "--namespace", metavar="NAMESPACE", default="default", help="of the objects (default: default)"
    )
    parser.add_argument(
        "-A", "--all-namespaces", action="store_true", default=False, help="of all namespaces"
    )


def wanted(arguments: argparse.Namespace, kinds: Collection[str]) -> list[Wanted]:
    """The objects that are asked for, each kind once."""
    first, *rest = arguments.targets
    names: dict[str, list[str]]
    if any("/" in target for target in arguments.targets):
        names = {}
        for target in arguments.targets:
            kind, slash, name = target.partition("/")
            if not slash or not name or "/" in name:
                raise UsageError(f"{target!r} is not KIND/NAME, as the others are.")
            names.setdefault(_plural(kind, kinds), []).append(name)
    else:
        names = {_plural(kind, kinds): rest for kind in first.split(",")}
    found = [Wanted(kind, tuple(dict.fromkeys(own))) for kind, own in names.items()]
    if arguments.all_namespaces and any(each.names for each in found):
        raise UsageError("A name belongs to one namespace: give NAME or --all-namespaces.")
    return found


def _plural(text: str, kinds: Collection[str]) -> str:
    names = {
        name: plural
        for plural in kinds
        for name in (plural, *KINDS[plural].aliases, KINDS[plural].singular, KINDS[plural].kind.lower())
    }
    if text.lower() not in names:
        raise UsageError(f"{text!r} is not one of {', '.join(sorted(names, key=list(names).index))}.")
    return names[text.lower()]


class Found(NamedTuple):
    """What there is of what was asked for."""

    items: list[Any]
    """In the order in which they were named, else in order of their names."""
    missing: list[str]
    """A sentence for each that there is not."""


def find(objects: Objects, asked: Wanted, arguments: argparse.Namespace) -> Found:
    """The objects of one kind."""
    own, every, namespace = asked.kind, asked.kind.select(objects), arguments.namespace
    if not asked.names:
        shown = [i for i in every if arguments.all_namespaces or own.name(i).namespace == namespace]
        return Found(shown, [])
    known = {own.name(item): item for item in every}
    names = [NamespacedName(namespace, name) for name in asked.names]
    missing = [_not_found(asked.plural, name, known) for name in names if name not in known]
    return Found([known[name] for name in names if name in known], missing)


def nothing(plural: str, arguments: argparse.Namespace) -> str:
    """There is none of the kind at all."""
    where = "" if arguments.all_namespaces else f" in namespace {arguments.namespace}"
    return f"No {plural} found{where}."


def _not_found(plural: str, name: NamespacedName, known: Iterable[NamespacedName]) -> str:
    """There is none of this name; where there are such."""
    elsewhere = ", ".join(sorted(other.namespace for other in known if other.name == name.name))
    hint = f" There is one in {elsewhere}: see -n." if elsewhere else ""
    return f"{plural} {name.name!r} not found in namespace {name.namespace}.{hint}"
