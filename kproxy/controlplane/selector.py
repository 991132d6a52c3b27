"""Selects pods again and again: only for the Services that a change concerns. Pure.

A change concerns a Service if the Service, its slices or its allocated families changed, if its selector
matches the labels that a changed pod has or had, or if a workload began or ended to lack its pods. A change
of the Nodes, or the first pod, concerns all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct

from kproxy.controlplane.differences import changed_keys
from kproxy.controlplane.selection import mismatches
from kproxy.controlplane.slices import PodIndex, SelectorIndex, selected_slices
from kproxy.controlplane.workloads import Lack, awaiting, find_lacks
from kproxy.model import ClusterState, EndpointSlice, NamespacedName, Pod, Service
from kproxy.problems import Problem

T = TypeVar("T")


class Selected(Struct, frozen=True):
    """The slices of all Services: those of the input, else those of the selected pods."""

    slices: dict[NamespacedName, tuple[EndpointSlice, ...]]
    warnings: list[Problem]
    """Services that do not match their pods or endpoints, sorted by name."""
    lacks: list[Lack]
    """The workloads that lack pods."""


class Selector:
    """Selects for one input after another. The results are those of a new Selector."""

    def __init__(self) -> None:
        self._state = ClusterState({}, {}, (), {})
        self._allocated: dict[NamespacedName, Service] = {}
        self._by_label, self._selectors = PodIndex(()), SelectorIndex(())
        self._lacks: list[Lack] = []
        self._made: dict[NamespacedName, tuple[EndpointSlice, ...]] = {}
        self._warnings: dict[NamespacedName, list[Problem]] = {}

    def select(self, state: ClusterState, allocated: dict[NamespacedName, Service]) -> Selected:
        """Select pods. `allocated` contains the Services with their families. Each pod has its own name."""
        before, self._state = self._state, state
        concerned = changed_keys(self._allocated, allocated) | changed_keys(before.slices, state.slices)
        self._allocated = allocated
        may_lack = self._may_change_lacks(before)
        concerned |= self._change_services(before) | self._change_pods(before)
        concerned |= self._update_lacks() if may_lack else set()
        if state.nodes != before.nodes or bool(state.pods) != bool(before.pods):
            concerned |= state.services.keys()
        in_order = self._made.copy() if list(before.services) == list(state.services) else {}
        self._update(concerned)
        if not self._made.keys() <= in_order.keys():
            self._made = {name: self._made[name] for name in state.services if name in self._made}
        warnings = [problem for name in sorted(self._warnings) for problem in self._warnings[name]]
        return Selected({**state.slices, **self._made}, warnings, self._lacks)

    def _change_services(self, before: ClusterState) -> set[NamespacedName]:
        changed = changed_keys(before.services, self._state.services)
        for service in _present(before.services, changed):
            self._selectors.remove(service)
        for service in _present(self._state.services, changed):
            self._selectors.add(service)
        return changed

    def _may_change_lacks(self, before: ClusterState) -> bool:
        """Whether a workload may lack more or fewer pods than before."""
        now = self._state
        return bool(now.workloads or before.workloads) and (
            now.workloads != before.workloads
            or now.nodes != before.nodes
            or now.slices.keys() != before.slices.keys()
            or _selectors(now.services) != _selectors(before.services)
            or list(map(_counted, now.pods)) != list(map(_counted, before.pods))
        )

    def _change_pods(self, before: ClusterState) -> set[NamespacedName]:
        """Return the Services that select a changed pod, or did."""
        old, present = ({pod.name: pod for pod in pods} for pods in (before.pods, self._state.pods))
        changed = changed_keys(old, present)
        gone, new = _present(old, changed), _present(present, changed)
        for pod in gone:
            self._by_label.remove(pod)
        for pod in new:
            self._by_label.add(pod)
        selecting = self._selectors.selecting
        return {name for pod in (*gone, *new) for name in selecting(pod.name.namespace, pod.labels)}

    def _update_lacks(self) -> set[NamespacedName]:
        """Return the Services whose pods a workload began or ended to lack."""
        before, self._lacks = self._lacks, list(find_lacks(self._state, self._by_label, self._selectors))
        return awaiting(before) ^ awaiting(self._lacks)

    def _update(self, concerned: Iterable[NamespacedName]) -> None:
        """Compute the slices and the warnings of these Services."""
        awaited = awaiting(self._lacks)
        for name in concerned:
            service = self._state.services.get(name)
            made, warnings = None, list[Problem]()
            if service is not None:
                made = selected_slices(service, self._allocated[name], self._state, self._by_label)
                warnings = mismatches(service, self._state, self._by_label, awaited)
            _set(self._made, name, made)
            _set(self._warnings, name, warnings or None)


def _selectors(services: Mapping[NamespacedName, Service]) -> dict[NamespacedName, dict[str, str]]:
    return {name: service.selector for name, service in services.items()}


def _counted(pod: Pod) -> tuple[NamespacedName, dict[str, str], bool]:
    """Return what decides which workloads count a pod."""
    return pod.name, pod.labels, pod.terminating


def _present(objects: Mapping[NamespacedName, T], names: Iterable[NamespacedName]) -> list[T]:
    return [objects[name] for name in names if name in objects]


def _set(values: dict[NamespacedName, T], name: NamespacedName, value: T | None) -> None:
    if value is None:
        values.pop(name, None)
    else:
        values[name] = value
