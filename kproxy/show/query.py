"""Which objects a command asks for: `svc web`, `svc/web pod/a`, `svc,ep -l app=web`, as in kubectl. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

from kproxy.model import NamespacedName
from kproxy.problems import CommandLineError
from kproxy.show.columns import sorted_by
from kproxy.show.jsonpath import Expression
from kproxy.show.kinds import KINDS, Kind, plurals_of
from kproxy.show.selectors import Selector, parse_selector
from kproxy.show.snapshot import Snapshot
from kproxy.show.tables import Objects


class Wanted(NamedTuple):
    """Objects of one kind."""

    plural: str
    names: tuple[str, ...]
    """(): all of the namespace."""

    @property
    def kind(self) -> Kind:
        """The kind of the objects."""
        return KINDS[self.plural]


class Found(NamedTuple):
    """Of the objects of one kind that were asked for, those that exist."""

    asked: Wanted
    items: list[Any]
    """In the order that was asked for: of names on the command line, or of a path; else by name."""
    missing: list[str]
    """A sentence for each object that does not exist."""


class Query(NamedTuple):
    """What a command asks for."""

    asked: tuple[Wanted, ...]
    """Each kind once."""
    namespace: str | None
    """None: all namespaces."""
    selector: Selector = Selector()
    order: Expression | None = None

    def find(self, objects: Objects) -> list[Found]:
        """What there is of it, by kind. KproxyError: no object has the path of the order."""
        return [self._ordered(self._find(objects, asked)) for asked in self.asked]

    def _find(self, objects: Objects, asked: Wanted) -> Found:
        kind, every = asked.kind, asked.kind.select(objects)
        if asked.names:
            return _named(objects, asked, every, self.namespace if kind.namespaced else "")
        anywhere = self.namespace is None or not kind.namespaced
        items = [item for item in every if anywhere or kind.name(item).namespace == self.namespace]
        return Found(asked, [item for item in items if self.selector.matches(kind.labels(item))], [])

    def _ordered(self, found: Found) -> Found:
        if self.order is None:
            return found
        return found._replace(items=sorted_by(self.order, found.items, found.asked.kind.manifest))

    def followed(self, snapshot: Snapshot) -> tuple[Query, list[str]]:
        """The kinds that the source of the snapshot reads, and a sentence for each of the others."""
        kinds = snapshot.inventory.followed
        others = [each for each in self.asked if each.kind.kind not in kinds]
        sentences = [f"kproxy does not follow {each.plural.capitalize()}; ask kubectl" for each in others]
        return self._replace(asked=tuple(each for each in self.asked if each not in others)), sentences

    def notes(self, snapshot: Snapshot) -> list[str]:
        """What may be missing although the source reads the kind."""
        if snapshot.inventory.all_nodes or all(each.plural != "nodes" for each in self.asked):
            return []
        return ["kproxy follows only the Node of this node; ask kubectl for the others"]

    @property
    def nothing(self) -> str:
        """The sentence that no object exists."""
        where = ""
        if self.namespace is not None and any(each.kind.namespaced for each in self.asked):
            where = f" in namespace {self.namespace}"
        return f"No {' or '.join(each.plural for each in self.asked)} found{where}."


def parse_query(
    targets: Sequence[str], kinds: Collection[str], namespace: str | None, selector: str = "", order: str = ""
) -> Query:
    """The query that the words and flags of a command line are; UsageError if they are unclear.

    `kinds`: the plurals of those that are allowed. `order`: the JSONPath to sort by.
    """
    asked = parse_targets(targets, kinds)
    if namespace is None and any(each.names and each.kind.namespaced for each in asked):
        raise CommandLineError("A name belongs to one namespace: give NAME or --all-namespaces.")
    if selector and any(each.names for each in asked):
        raise CommandLineError("Give names or --selector, not both.")
    return Query(asked, namespace, parse_selector(selector), Expression(order) if order else None)


def parse_targets(targets: Sequence[str], kinds: Collection[str]) -> tuple[Wanted, ...]:
    """The kinds and names that the words of a command line mean."""
    first, *rest = targets
    names: dict[str, list[str]] = {}
    if any("/" in target for target in targets):
        for plural, name in (_slashed(target, kinds) for target in targets):
            names.setdefault(plural, []).append(name)
    else:
        names = {plural: rest for word in first.split(",") for plural in plurals_of(word, kinds)}
    return tuple(Wanted(kind, tuple(dict.fromkeys(own))) for kind, own in names.items())


def _slashed(target: str, kinds: Collection[str]) -> tuple[str, str]:
    kind, slash, name = target.partition("/")
    if not slash or not name or "/" in name:
        raise CommandLineError(f"{target!r} is not KIND/NAME, as the others are.")
    plurals = plurals_of(kind, kinds)
    if len(plurals) > 1:
        raise CommandLineError(f"{target!r}: {kind} stands for several kinds, and takes no name.")
    return plurals[0], name


def _named(objects: Objects, asked: Wanted, every: Sequence[Any], namespace: str | None) -> Found:
    known = {asked.kind.name(item): item for item in every}
    names = [NamespacedName(namespace or "", name) for name in asked.names]
    missing = [_not_found(objects, asked, name, known) for name in names if name not in known]
    return Found(asked, [known[name] for name in names if name in known], missing)


def _not_found(objects: Objects, asked: Wanted, name: NamespacedName, known: Iterable[NamespacedName]) -> str:
    if not asked.kind.namespaced:
        return f"{asked.plural} {name.name!r} not found."
    elsewhere = ", ".join(sorted(other.namespace for other in known if other.name == name.name))
    hint = f" There is one in {elsewhere}: see -n." if elsewhere else ""
    if asked.kind.kind in ("Service", "Endpoints") and name in objects.programmed:
        hint = f" {objects.programmed[name]}"
    elif asked.kind.kind == "Pod" and (services := objects.services_of(name)):
        hint = f" It is an endpoint of Service {', '.join(services)}."
    return f"{asked.plural} {name.name!r} not found in namespace {name.namespace}.{hint}"
