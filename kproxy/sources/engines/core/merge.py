"""Adds the pods of containers to those of manifests. Pure.

A written pod wins over a container of the same name. If it has no address, it describes a container: the
one that its annotation `kproxy.io/container` names, otherwise the one of its own name. It then has the
address and the state of the container, and its own labels, ports and probes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from kproxy.decode import Decoded, Unreadable, decode
from kproxy.model import Container, NamespacedName, Pod
from kproxy.problems import Problem, limited
from kproxy.sources.engines.core.pods import CONTAINER_ANNOTATION


def with_found_pods(written: Decoded, found: Iterable[Decoded]) -> Decoded:
    """Add the pods of containers, by engine. If two engines have a pod of one name, the first one counts."""
    unreadable, problems, warnings = Unreadable(), list(written.problems), list(written.warnings)
    unreadable.update(written.unreadable)
    unreadable.empty = written.unreadable.empty
    pods: dict[NamespacedName, Pod] = {}
    for each in found:
        pods = {pod.name: pod for pod in each.state.pods} | pods
        unreadable.update(each.unreadable)
        problems += each.problems
        warnings += each.warnings
    state = replace(written.state, pods=tuple(_merged(written.state.pods, pods).values()))
    return replace(written, state=state, unreadable=unreadable, problems=problems, warnings=warnings)


def together(source: str, parts: Iterable[Decoded]) -> Decoded:
    """Return the pods of one engine, each decoded alone. Of two with one name, the first one counts."""
    pods: dict[NamespacedName, Pod] = {}
    problems, warnings, unreadable = list[Problem](), list[Problem](), Unreadable()
    for part in parts:
        for pod in part.state.pods:
            if pods.setdefault(pod.name, pod) is not pod:
                message = "is a duplicate: another container has this name as a pod"
                problems.append(Problem(source, f"Pod {pod.name}", "metadata.name", message))
        problems += part.problems
        warnings += part.warnings
        unreadable.update(part.unreadable)
    empty = decode(())
    state = replace(empty.state, pods=tuple(pods.values()))
    found = limited(problems), limited(warnings)
    return replace(empty, state=state, problems=found[0], warnings=found[1], unreadable=unreadable)


def _merged(written: Sequence[Pod], found: Mapping[NamespacedName, Pod]) -> dict[NamespacedName, Pod]:
    by_container = {own: pod for pod in found.values() for own in containers_of(pod)}
    merged, taken = {}, set()
    for pod in written:
        named = _named_container(pod)
        running = by_container.get(named) if named else found.get(pod.name)
        if running is not None and not pod.addresses and not pod.host_network:
            taken.add(running.name)
            merged[pod.name] = _described(pod, running)
        else:
            merged[pod.name] = pod
    return {name: pod for name, pod in found.items() if name not in taken} | merged


def containers_of(pod: Pod) -> Sequence[str]:
    """Return the names of the containers of a found pod."""
    return _annotation(pod).split()[1:]


def _named_container(pod: Pod) -> str:
    """Return the name of the container that a written pod describes; "" if it names none."""
    return _annotation(pod).rpartition(" ")[2]


def _annotation(pod: Pod) -> str:
    if CONTAINER_ANNOTATION not in pod.annotations:  # it is parsed only if that may matter
        return ""
    return str(json.loads(pod.annotations).get(CONTAINER_ANNOTATION, ""))


def _described(written: Pod, running: Pod) -> Pod:
    """Return the written pod with the address, the node and the state of a container."""
    return replace(
        written,
        addresses=running.addresses,
        host_network=running.host_network,
        node=running.node,
        phase=running.phase,
        deleted=written.deleted or running.deleted,
        uid=running.uid,
        ready=written.ready and running.ready,
        gates_open=written.gates_open and running.gates_open and running.ready,
        counts=running.counts,
        ports=written.ports or running.ports,
        containers=_containers(written.containers, running.containers) or running.containers,
    )


def _containers(written: Sequence[Container], running: Sequence[Container]) -> tuple[Container, ...]:
    """Return the written containers with their identifiers: by name, and if there is only one, that one's."""
    by_name = {container.name: container.identifier for container in running}
    only = running[0].identifier if len(running) == len(written) == 1 else ""
    return tuple(replace(each, identifier=by_name.get(each.name, only)) for each in written)
