"""Kubernetes objects -> model. No other folder knows camelCase names and API versions.

    documents (here) -> leaves.py: the objects of one document
                     -> objects.py: one object -> kinds.py: is it a known one
                                               -> wire.py: types -> service.py, endpointslices.py, node.py,
                                                  ingress.py: values
                                                  gatewaywire.py: types -> gateways.py, routes.py: values
                                               -> schema.py, advice.py: fields without effect
                                               -> strict.py: wire.py and schema.py in one pass
                     -> ClusterState (here)

An invalid object is ignored and reported as a `Problem`. It does not affect the others.
`Unreadable` lists the Services of which a part may be missing for this reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain, compress, count, zip_longest
from operator import is_not
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kproxy import model
from kproxy.decode.kinds import API_VERSIONS
from kproxy.decode.leaves import Document, Invalid, Leaf, Leaves, Other, Valid, leaves_of, too_many
from kproxy.decode.objects import Object, Unreadable
from kproxy.decode.replacing import Pair, replaced
from kproxy.gatewayapi import (
    NO_OBJECTS,
    Gateway,
    GatewayClass,
    GatewayObjects,
    Namespace,
    ReferenceGrant,
    Route,
)
from kproxy.limits import DOCUMENTS
from kproxy.problems import Problem, limited

__all__ = ["Decoded", "Document", "Unreadable", "decode", "gateway_objects"]


class Decoded(Struct, frozen=True):
    """The result of decoding documents."""

    state: model.ClusterState
    problems: list[Problem]
    unreadable: Unreadable
    ignored: Counter[str]
    """The number of objects of each kind that kproxy does not use."""
    warnings: list[Problem]
    """Objects that are used, but perhaps not as they were meant."""
    counts: Counter[str]
    """The number of objects in each source, valid or not, without Lists."""
    gateways: GatewayObjects = NO_OBJECTS

    @property
    def unused(self) -> Counter[str]:
        """The number of objects of each kind on which no Service depends."""
        state = self.state
        others = Counter(Secret=len(state.secrets), IngressClass=len(state.ingress_classes))
        return self.ignored + others + Counter(workload.kind for workload in state.workloads)

    @property
    def has_used(self) -> bool:
        """Whether a Service depends on an object, or would depend on one that is invalid."""
        return self.counts.total() > self.unused.total()


def decode(documents: Iterable[Document]) -> Decoded:
    """Decode all valid objects. Equal input in equal order gives equal output."""
    return Decoder().decode(documents)


class Decoder:
    """Decodes one input after another. A document that both have, as one value, is decoded once.

    The result is the same as that of a new Decoder. If only Services, EndpointSlices and Pods were replaced
    by others of the same names, the other objects are not collected again.
    """

    def __init__(self) -> None:
        self._documents: list[Document] = []
        self._leaves: list[Leaves] = []
        self._collected = _Collector()
        self._decoded: Decoded | None = None

    def decode(self, documents: Iterable[Document]) -> Decoded:
        """Decode all valid objects."""
        before, self._documents = self._documents, list(documents)
        if len(before) == len(self._documents) and self._decoded:
            state = self._replaced(self._decoded.state, before)
        else:
            known = dict(zip(map(id, before), self._leaves, strict=True))
            self._leaves = [
                known[id(each)] if id(each) in known else leaves_of(each) for each in self._documents
            ]
            state = None
        if state and self._decoded:
            self._decoded = replace(self._decoded, state=state)
        else:
            self._collected = _Collector()
            for document, leaves in zip(self._documents, self._leaves, strict=True):
                self._collected.add(document, list(chain.from_iterable(leaves)))
            self._decoded = self._collected.decoded()
        return self._decoded

    def _replaced(self, state: model.ClusterState, before: list[Document]) -> model.ClusterState | None:
        """Decode the documents that differ. Returns the new state if they only replace objects."""
        places = list(compress(count(), map(is_not, before, self._documents)))
        pairs: list[Pair] = []
        for place in places:
            old = self._leaves[place]
            new = self._leaves[place] = leaves_of(self._documents[place], before[place], old)
            pairs += zip_longest(chain.from_iterable(old), chain.from_iterable(new))
        if any(before[place].repeated or self._documents[place].repeated for place in places):
            return None
        changed = [(one, other) for one, other in pairs if one is not other]
        return replaced(state, changed, self._collected.repeated)


class _Collector:
    """Collects what was decoded, document by document."""

    def __init__(self) -> None:
        self.repeated: set[tuple[str, model.NamespacedName]] = set()
        """Kind and name of the objects that occur several times."""
        self._objects: list[Object] = []
        self._workloads: list[model.Workload] = []
        self._problems: list[Problem] = []
        self._warnings: list[Problem] = []
        self._unreadable = Unreadable()
        self._ignored: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._seen: dict[tuple[str, model.NamespacedName], str] = {}
        self._pods: dict[model.NamespacedName, int] = {}
        """Where each Pod is in `_objects`."""

    def decoded(self) -> Decoded:
        """Return all that was added."""
        return Decoded(
            replace(_assemble(self._objects), workloads=tuple(self._workloads)),
            limited(self._problems),
            self._unreadable,
            self._ignored,
            limited(self._warnings),
            self._counts,
            gateway_objects(self._objects),
        )

    def add(self, document: Document, leaves: list[Leaf]) -> None:
        """Add the objects of a document."""
        before, source = len(self._objects), document.source
        if len(leaves) > 1 and self._counts[source] + len(leaves) > DOCUMENTS:
            leaves = [too_many(source, document.place)]
        self._counts[source] += len(leaves)
        for leaf in leaves:
            self._add(source, leaf)
        for key in document.repeated if len(self._objects) > before else ():
            message = f'has the key "{key}" twice: the last one is used'
            self._warnings.append(Problem(source, document.place, "", message))

    def _add(self, source: str, leaf: Leaf) -> None:
        match leaf:
            case Valid():
                self._add_valid(source, leaf)
            case Other():
                self._add_other(source, leaf)
            case Invalid():
                self._unreadable.update(leaf.unreadable)
                self._problems.append(leaf.problem)

    def _add_valid(self, source: str, leaf: Valid) -> None:
        self._warnings += leaf.warnings
        kind, name = leaf.key
        if leaf.key in self._seen:
            self.repeated.add(leaf.key)
            if self._is_one_pod(leaf.models):
                return
            message = f"is a duplicate; the object in {self._seen[leaf.key]} is used"
            self._problems.append(Problem(source, f"{kind} {name}", "metadata.name", message))
            return
        self._seen[leaf.key] = source
        if kind == "Pod":
            self._pods[name] = len(self._objects)
        self._problems += leaf.left_out
        if leaf.unreadable:
            self._unreadable.update(leaf.unreadable)
        self._objects += leaf.models

    def _is_one_pod(self, found: list[Object]) -> bool:
        """Whether it is a known Pod, and only one of the two has an address. That one is used."""
        match found:
            case [model.Pod() | model.EndedPod() as second]:
                first = self._objects[self._pods[second.name]]
                had, has = _has_address(first), _has_address(second)
                if has and not had:
                    self._objects[self._pods[second.name]] = second
                return had != has
        return False

    def _add_other(self, source: str, leaf: Other) -> None:
        """Add an object that no Service depends on: a workload, or one of a kind that is ignored."""
        kind, found = leaf.kind, leaf.found
        if isinstance(found, model.Workload):
            subject, key = f"{kind} {found.name}", (kind, found.name)
            if key not in self._seen:
                self._seen[key] = source
                self._workloads.append(found)
                return
            message = f"is a duplicate; the object in {self._seen[key]} is shown"
            found = Problem(source, subject, "metadata.name", message)
        if found is not None:
            self._warnings.append(found)
        self._ignored[f"{kind} ({leaf.version})" if kind in API_VERSIONS else kind] += 1


def _has_address(pod: Object) -> bool:
    return isinstance(pod, model.Pod) and bool(pod.addresses)


def _assemble(found: Iterable[Object]) -> model.ClusterState:
    """Sort objects by kind. If a Service has EndpointSlices, its legacy Endpoints object is ignored."""
    kinds: dict[type[Object], list[Any]] = defaultdict(list)
    for item in found:
        kinds[type(item)].append(item)
    return model.ClusterState(
        {service.name: service for service in kinds[model.Service]},
        _slices_by_service(kinds[model.EndpointSlice]),
        tuple(kinds[model.Pod]),
        {node.name: node for node in kinds[model.ClusterNode]},
        tuple(kinds[model.Ingress]),
        ingress_classes=tuple(kinds[model.IngressClass]),
        secrets={secret.name: secret for secret in kinds[model.Secret]},
        ended_pods=tuple(kinds[model.EndedPod]),
    )


def _slices_by_service(
    found: Iterable[model.EndpointSlice],
) -> dict[model.NamespacedName, tuple[model.EndpointSlice, ...]]:
    current: dict[model.NamespacedName, list[model.EndpointSlice]] = defaultdict(list)
    legacy: dict[model.NamespacedName, list[model.EndpointSlice]] = defaultdict(list)
    for each in found:
        (legacy if each.legacy else current)[each.service].append(each)
    return {name: tuple(members) for name, members in {**legacy, **current}.items()}


def gateway_objects(found: Iterable[Object]) -> GatewayObjects:
    """Sort the objects of the Gateway API by kind."""
    objects = GatewayObjects({}, {}, {}, {}, {}, {}, {}, {})
    for item in found:
        match item:
            case GatewayClass():
                objects.classes[item.name] = item
            case Gateway():
                objects.gateways[item.name] = item
            case Route():
                objects.routes[item.kind][item.name] = item
            case ReferenceGrant():
                objects.grants[item.name] = item
            case Namespace():
                objects.namespaces[item.name] = item
    return objects
