"""Parses the objects that a command requests: `svc web`, `svc/web pod/a`, `svc,ep -l app=web`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from kproxy.model import NamespacedName, Selector
from kproxy.problems import CommandLineError
from kproxy.show.columns import sorted_by
from kproxy.show.components import KIND as COMPONENT
from kproxy.show.jsonpath import Expression
from kproxy.show.kinds import KINDS, Kind, plurals_of
from kproxy.show.selectors import parse_selector
from kproxy.show.snapshot import Snapshot
from kproxy.show.tables import Objects

NAMED_KINDS = 2
"""A sentence that nothing was found names at most so many kinds."""


class Requested(NamedTuple):
    """The requested objects of one kind."""

    plural: str
    names: tuple[str, ...]
    """() for all objects."""

    @property
    def kind(self) -> Kind:
        """The kind."""
        return KINDS[self.plural]


class Found(NamedTuple):
    """The existing objects among the requested ones of one kind."""

    requested: Requested
    items: list[Any]
    """In the order of the names on the command line, or of `Query.order`; otherwise by name."""
    missing: list[str]
    """A sentence for each object that does not exist."""


class Query(NamedTuple):
    """The objects that a command requests."""

    requested: tuple[Requested, ...]
    """Each kind once."""
    namespace: str | None
    """None for all namespaces."""
    selector: Selector = Selector()
    order: Expression | None = None
    """The values by which to sort; None to sort by name."""

    def find(self, objects: Objects) -> list[Found]:
        """Return the requested objects by kind. Raises KproxyError if no object has a value for the order."""
        return [self._ordered(self._find(objects, requested)) for requested in self.requested]

    def _find(self, objects: Objects, requested: Requested) -> Found:
        kind, every = requested.kind, requested.kind.select(objects)
        if requested.names:
            return _named(objects, requested, every, self.namespace if kind.namespaced else "")
        anywhere = self.namespace is None or not kind.namespaced
        items = [item for item in every if anywhere or kind.name(item).namespace == self.namespace]
        return Found(requested, [item for item in items if self.selector.matches(kind.labels(item))], [])

    def _ordered(self, found: Found) -> Found:
        if self.order is None:
            return found
        return found._replace(items=sorted_by(self.order, found.items, found.requested.kind.manifest))

    def followed(self, snapshot: Snapshot) -> tuple[Query, list[str]]:
        """Return the query without kinds that are not followed, and a sentence about these."""
        kinds = snapshot.inventory.followed
        others = [each for each in self.requested if each.kind.kind not in {*kinds, COMPONENT}]
        names = ", ".join(each.plural.capitalize() for each in others)
        sentences = [f"kproxy does not follow {names}; ask kubectl"] if others else []
        return self._replace(
            requested=tuple(each for each in self.requested if each not in others)
        ), sentences

    def notes(self, snapshot: Snapshot) -> list[str]:
        """Return sentences about objects that may be missing, although the source follows their kind."""
        if snapshot.inventory.all_nodes or all(each.plural != "nodes" for each in self.requested):
            return []
        return ["kproxy follows only the Node of this node; ask kubectl for the others"]

    @property
    def nothing(self) -> str:
        """The sentence to print if no object exists."""
        where = ""
        if self.namespace is not None and any(each.kind.namespaced for each in self.requested):
            where = f" in namespace {self.namespace}"
        kinds = [each.plural for each in self.requested]
        return f"No {' or '.join(kinds) if len(kinds) <= NAMED_KINDS else 'resources'} found{where}."


def parse_query(
    targets: Sequence[str], kinds: Collection[str], namespace: str | None, selector: str = "", order: str = ""
) -> Query:
    """Parse the arguments and flags of a command line. Raises UsageError.

    `kinds` are the plurals of the allowed kinds. `order` is the JSONPath to sort by.
    """
    requested = parse_targets(targets, kinds)
    if namespace is None and any(each.names and each.kind.namespaced for each in requested):
        raise CommandLineError("A resource cannot be retrieved by name across all namespaces.")
    if selector and any(each.names for each in requested):
        raise CommandLineError("A name cannot be combined with --selector.")
    return Query(requested, namespace, parse_selector(selector), Expression(order) if order else None)


def parse_targets(targets: Sequence[str], kinds: Collection[str]) -> tuple[Requested, ...]:
    """Parse the kinds and names in the arguments of a command line."""
    first, *rest = targets
    names: dict[str, list[str]] = {}
    if any("/" in target for target in targets):
        for plural, name in (_slashed(target, kinds) for target in targets):
            names.setdefault(plural, []).append(name)
    else:
        names = {plural: rest for word in first.split(",") for plural in plurals_of(word, kinds)}
    return tuple(Requested(kind, tuple(dict.fromkeys(own))) for kind, own in names.items())


def _slashed(target: str, kinds: Collection[str]) -> tuple[str, str]:
    kind, slash, name = target.partition("/")
    if not slash or not name or "/" in name:
        raise CommandLineError(f"{target!r} is not KIND/NAME, which cannot be combined with other forms.")
    plurals = plurals_of(kind, kinds)
    if len(plurals) > 1:
        raise CommandLineError(f"{target!r}: {kind} stands for several kinds, so it cannot have a name.")
    return plurals[0], name


def _named(objects: Objects, requested: Requested, every: Sequence[Any], namespace: str | None) -> Found:
    by_name = {requested.kind.name(item): item for item in every}
    names = [NamespacedName(namespace or "", name) for name in requested.names]
    missing = [_not_found(objects, requested, name, by_name) for name in names if name not in by_name]
    return Found(requested, [by_name[name] for name in names if name in by_name], missing)


def _not_found(
    objects: Objects, requested: Requested, name: NamespacedName, existing: Iterable[NamespacedName]
) -> str:
    if not requested.kind.namespaced:
        return f"{requested.plural} {name.name!r} not found."
    elsewhere = ", ".join(sorted(other.namespace for other in existing if other.name == name.name))
    hint = f" It exists in namespace {elsewhere}: see -n." if elsewhere else ""
    if requested.kind.kind in ("Service", "Endpoints") and name in objects.programmed:
        hint = f" {objects.programmed[name]}"
    elif requested.kind.kind == "Pod" and (services := objects.services_of(name)):
        hint = f" It is an endpoint of Service {', '.join(services)}."
    return f"{requested.plural} {name.name!r} not found in namespace {name.namespace}.{hint}"
