"""What descriptions share: all objects by what they belong to, and how sections are written. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from kproxy.controlplane.slices import PodIndex, selects
from kproxy.model import Annotations, EndpointSlice, Frontend, NamespacedName, Pod, Service
from kproxy.show.manifests import annotations_of
from kproxy.show.snapshot import HeldFrontend, Snapshot
from kproxy.show.tables import NONE, UNFOLLOWED, follows, objects

WIDTH = 140
"""Of an annotation, as in kubectl."""
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Context:
    """All that there is, and by service, for what an object has to do with others."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        """`now` in seconds of the Unix epoch."""
        self.snapshot = snapshot
        self.inventory = snapshot.inventory
        self.now = now
        self.objects = objects(snapshot)
        self.services = {service.name: service for service in self.objects.services}
        self._frontends = _grouped(snapshot.frontends, lambda frontend: frontend.owner.service)
        self._slices = _grouped(self.objects.slices, lambda slice_: slice_.service)
        self._problems = _grouped((*snapshot.problems, *snapshot.warnings), lambda problem: problem.object)
        self._pods = PodIndex(self.objects.pods)

    def frontends(self, service: NamespacedName) -> list[Frontend]:
        """Those of a service on this node."""
        return self._frontends.get(service, [])

    def held_frontends(self, service: NamespacedName) -> list[HeldFrontend]:
        """Those of a service that only the tables contain."""
        return [each for each in self.snapshot.held_frontends if each.service == service]

    def slices(self, service: NamespacedName) -> list[EndpointSlice]:
        """Those of a service."""
        return self._slices.get(service, [])

    def no_endpoints(self, service: Service) -> str:
        """What stands for the endpoints of a service that has none here."""
        return NONE if follows(self.inventory, service) else UNFOLLOWED

    def counts_selector(self, service: Service) -> bool:
        """Whether its endpoints come from its selector."""
        return selects(service) and service.name not in self.inventory.unselected

    def selected(self, service: Service) -> list[Pod]:
        """The pods that its selector, if it counts, matches."""
        if not self.counts_selector(service):
            return []
        return self._pods.select(service.name.namespace, service.selector)

    def problems(self, kind: str, name: NamespacedName) -> list[str]:
        """Those of one object, without its name: why it is held, what is wrong, and warnings."""
        reason = self.inventory.held.get(name) if kind in ("Service", "Endpoints") else None
        found = [str(problem._replace(object="")) for problem in self._problems.get(f"{kind} {name}", [])]
        return [f"held: {reason}", *found] if reason else found

    def failures(self, kind: str, name: NamespacedName) -> list[tuple[str, str]]:
        """When, and what could not be done with one object, or at all."""
        return [(f.time, f.message) for f in self.snapshot.last_errors if f.object in (f"{kind} {name}", "")]


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def section(title: str, content: str | list[str]) -> str:
    """Lines with a title over them; if there are none, that."""
    lines = content.splitlines() if isinstance(content, str) else content
    return f"{title}:\n" + "".join(f"  {line}\n" for line in lines or [NONE])


def heading(name: NamespacedName, own: dict[str, str]) -> Iterator[tuple[str, str]]:
    """What every object begins with."""
    yield "Name:", name.name
    if name.namespace:
        yield "Namespace:", name.namespace
    yield from multiline("Labels:", [f"{key}={text}" for key, text in sorted(own.items())])


def annotation_lines(own: Annotations, context: Context) -> Iterator[tuple[str, str]]:
    """As kubectl shows them; nothing for objects of a cluster, of which they are not kept."""
    if context.inventory.annotated:
        yield from multiline("Annotations:", _annotations(own))


def multiline(title: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """A line for each text, the first one with the title; if there are none, that."""
    for text in list(texts) or [NONE]:
        yield title, text
        title = ""


def _annotations(own: Annotations) -> Iterator[str]:
    """A long text, and one of several lines, begins below its key, and is cut."""
    for key, text in annotations_of(own).items():
        text = text.removesuffix("\n")
        if len(key) + len(text) + 2 <= WIDTH and "\n" not in text:
            yield f"{key}: {text}"
        else:
            yield f"{key}:"
            yield from (f"  {_cut(line)}" for line in text.split("\n"))


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH - 2 else f"{line[: WIDTH - 5]}..."


def indented(text: str, by: int) -> str:
    """Each line so many blanks further to the right."""
    return "".join(" " * by + line for line in text.splitlines(keepends=True))
