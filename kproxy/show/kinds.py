"""The kinds that can be shown, and which objects a command asks for: `svc web`, `svc/web pod/a`, `svc,ep`.

The words are kubectl's: plural, singular, short names and categories. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from kproxy.model import NamespacedName
from kproxy.problems import CommandLineError
from kproxy.settings.text import did_you_mean
from kproxy.show import manifests, tables
from kproxy.show.snapshot import Snapshot
from kproxy.show.tables import Age, Objects


class Kind(NamedTuple):
    """One kind of object, and how it is shown."""

    aliases: tuple[str, ...]
    singular: str
    """As `-o name` writes it."""
    kind: str
    """As a Problem writes it."""
    select: Callable[[Objects], Sequence[Any]]
    rows: Callable[[Iterable[Any], Age, bool], list[list[str]]]
    manifest: Callable[[Any], dict[str, Any]]
    name: Callable[[Any], NamespacedName] = attrgetter("name")
    labels: Callable[[Any], dict[str, str]] = attrgetter("labels")


KINDS = {
    "services": Kind(
        ("svc",),
        "service",
        "Service",
        attrgetter("services"),
        tables.service_rows,
        manifests.service_manifest,
    ),
    "endpoints": Kind(
        ("ep",),
        "endpoints",
        "Endpoints",
        attrgetter("endpoints"),
        tables.endpoints_rows,
        manifests.endpoints_manifest,
    ),
    "pods": Kind(("po",), "pod", "Pod", attrgetter("pods"), tables.pod_rows, manifests.pod_manifest),
    "endpointslices": Kind(
        ("endpointslice",),
        "endpointslice.discovery.k8s.io",
        "EndpointSlice",
        attrgetter("slices"),
        tables.slice_rows,
        manifests.slice_manifest,
        name=lambda slice_: NamespacedName(slice_.service.namespace, slice_.name),
        labels=manifests.slice_labels,
    ),
    "ingresses": Kind(
        ("ingress", "ing"),
        "ingress.networking.k8s.io",
        "Ingress",
        attrgetter("ingresses"),
        tables.ingress_rows,
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
        """The kind of the objects."""
        return KINDS[self.plural]


def parse_targets(
    targets: Sequence[str], kinds: Collection[str], namespace: str | None = "default"
) -> list[Wanted]:
    """The objects that the words of a command line ask for, each kind once; CommandLineError if unclear.

    `kinds`: the plurals of those that are allowed. `namespace` None: the objects of all namespaces.
    """
    first, *rest = targets
    names: dict[str, list[str]]
    if any("/" in target for target in targets):
        names = {}
        for target in targets:
            kind, slash, name = target.partition("/")
            if not slash or not name or "/" in name:
                raise CommandLineError(f"{target!r} is not KIND/NAME, as the others are.")
            names.setdefault(_plural(kind, kinds), []).append(name)
    else:
        names = {_plural(kind, kinds): rest for kind in first.split(",")}
    if namespace is None and any(names.values()):
        raise CommandLineError("A name belongs to one namespace: give NAME or --all-namespaces.")
    return [Wanted(kind, tuple(dict.fromkeys(own))) for kind, own in names.items()]


def _plural(text: str, kinds: Collection[str]) -> str:
    names = {
        name: plural
        for plural in kinds
        for name in (plural, *KINDS[plural].aliases, KINDS[plural].singular, KINDS[plural].kind.lower())
    }
    if text.lower() not in names:
        known = ", ".join(f"{plural} ({KINDS[plural].aliases[-1]})" for plural in kinds)
        hint = did_you_mean(text.lower(), names) or f" A KIND is {known}."
        raise CommandLineError(f"Unknown kind {text}.{hint}")
    return names[text.lower()]


def followed(asked: Iterable[Wanted], snapshot: Snapshot) -> tuple[list[Wanted], list[str]]:
    """Those whose kind the source of the snapshot reads, and a sentence for each of the others."""
    kinds = snapshot.inventory.followed
    others = [each for each in asked if each.kind.kind not in kinds]
    sentences = [f"kproxy does not follow {each.plural.capitalize()}; ask kubectl" for each in others]
    return [each for each in asked if each.kind.kind in kinds], sentences


class Found(NamedTuple):
    """The objects that exist among those that were asked for."""

    items: list[Any]
    """In the order of the names on the command line, else sorted by name."""
    missing: list[str]
    """A sentence for each object that does not exist."""


def find(objects: Objects, asked: Wanted, namespace: str | None) -> Found:
    """The objects of one kind in a namespace; None: in all namespaces, without names."""
    own, every = asked.kind, asked.kind.select(objects)
    if namespace is None or not asked.names:
        return Found([item for item in every if namespace in (None, own.name(item).namespace)], [])
    known = {own.name(item): item for item in every}
    names = [NamespacedName(namespace, name) for name in asked.names]
    missing = [_not_found(objects, asked, name, known) for name in names if name not in known]
    return Found([known[name] for name in names if name in known], missing)


def nothing(plural: str, namespace: str | None) -> str:
    """The sentence that no object of a kind exists."""
    where = "" if namespace is None else f" in namespace {namespace}"
    return f"No {plural} found{where}."


def _not_found(objects: Objects, asked: Wanted, name: NamespacedName, known: Iterable[NamespacedName]) -> str:
    elsewhere = ", ".join(sorted(other.namespace for other in known if other.name == name.name))
    hint = f" There is one in {elsewhere}: see -n." if elsewhere else ""
    if asked.kind.kind in ("Service", "Endpoints") and name in objects.programmed:
        hint = f" {objects.programmed[name]}"
    elif asked.kind.kind == "Pod" and (services := objects.services_of(name)):
        hint = f" It is an endpoint of Service {', '.join(services)}."
    return f"{asked.plural} {name.name!r} not found in namespace {name.namespace}.{hint}"
