"""Code that all descriptions share: related objects, and the layout of sections. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from kproxy.controlplane.slices import PodIndex, selects
from kproxy.model import Annotations, EndpointSlice, Frontend, NamespacedName, Pod, Service
from kproxy.printable import printable
from kproxy.show.manifests import annotations_of
from kproxy.show.snapshot import HeldFrontend, Snapshot
from kproxy.show.tables import NONE, UNFOLLOWED, follows, objects

WIDTH = 140
"""The maximum width of an annotation, as in kubectl."""
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Context:
    """A snapshot, with indexes that find related objects."""

    def __init__(self, snapshot: Snapshot, now: float) -> None:
        """`now` is in seconds since the epoch."""
        self.snapshot = snapshot
        self.inventory = snapshot.inventory
        self.now = now
        self.objects = objects(snapshot)
        self.services = {service.name: service for service in self.objects.services}
        self._frontends = grouped(snapshot.frontends, lambda frontend: frontend.owner.service)
        self._slices = grouped(self.objects.slices, lambda slice_: slice_.service)
        self._problems = grouped((*snapshot.problems, *snapshot.warnings), lambda problem: problem.object)
        self.pods = PodIndex(self.objects.pods)

    def frontends(self, service: NamespacedName) -> list[Frontend]:
        """Return the frontends of a service on this node."""
        return self._frontends.get(service, [])

    def held_frontends(self, service: NamespacedName) -> list[HeldFrontend]:
        """Return the frontend sides of a service that only the tables contain."""
        return [each for each in self.snapshot.held_frontends if each.service == service]

    def slices(self, service: NamespacedName) -> list[EndpointSlice]:
        """Return the slices of a service."""
        return self._slices.get(service, [])

    def no_endpoints(self, service: Service) -> str:
        """Return the text to show for a service without endpoints."""
        return NONE if follows(self.inventory, service) else UNFOLLOWED

    def uses_selector(self, service: Service) -> bool:
        """Whether the endpoints of a service come from its selector."""
        return selects(service) and service.name not in self.inventory.unselected

    def selected(self, service: Service) -> list[Pod]:
        """Return the pods that match the selector of a service; [] if its selector is not used."""
        if not self.uses_selector(service):
            return []
        return self.pods.select(service.name.namespace, service.selector)

    def problems(self, kind: str, name: NamespacedName) -> list[str]:
        """Return problems and warnings of an object, and why it is held, without its name."""
        reason = self.inventory.held.get(name) if kind in ("Service", "Endpoints") else None
        found = [str(problem._replace(object="")) for problem in self._problems.get(f"{kind} {name}", [])]
        return [f"held: {reason}", *found] if reason else found

    def failures(self, kind: str, name: NamespacedName) -> list[tuple[str, str]]:
        """Return time and message of the last errors that concern an object, or no single object."""
        return [(f.time, f.message) for f in self.snapshot.last_errors if f.object in (f"{kind} {name}", "")]


def grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return the items by key."""
    groups: dict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def section(title: str, content: str | list[str]) -> str:
    """Return a title, and indented lines below it; `<none>` if there are no lines."""
    lines = content.removesuffix("\n").split("\n") if isinstance(content, str) and content else content
    return f"{title}:\n" + "".join(f"  {printable(line)}\n" for line in lines or [NONE])


def heading(name: NamespacedName, labels: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Return the first lines of a description: name, namespace and labels."""
    yield "Name:", name.name
    if name.namespace:
        yield "Namespace:", name.namespace
    yield from multiline("Labels:", [f"{key}={text}" for key, text in sorted(labels.items())])


def annotation_lines(annotations: Annotations, context: Context) -> Iterator[tuple[str, str]]:
    """Return annotations as kubectl shows them; nothing if the source does not keep them, as in a cluster."""
    if context.inventory.annotated:
        yield from multiline("Annotations:", _annotations(annotations))


def multiline(title: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Return a line for each text, the first one with the title; `<none>` if there are no texts."""
    for text in list(texts) or [NONE]:
        yield title, text
        title = ""


def _annotations(annotations: Annotations) -> Iterator[str]:
    """Return the lines of annotations. A long text, or one with line breaks, begins below its key."""
    for key, text in annotations_of(annotations).items():
        text = text.removesuffix("\n")
        if len(key) + len(text) + 2 <= WIDTH and "\n" not in text:
            yield f"{key}: {text}"
        else:
            yield f"{key}:"
            yield from (f"  {_cut(line)}" for line in text.split("\n"))


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH - 2 else f"{line[: WIDTH - 5]}..."


def indented(text: str, by: int) -> str:
    """Indent each line by a number of blanks."""
    return "".join(" " * by + line for line in text.splitlines(keepends=True))
