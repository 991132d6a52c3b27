"""The pods of workloads: how many they want, and how many exist. A cluster would start them, kproxy does not.

As a controller does, a workload counts the pods that its selector matches and that do not end. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from msgspec import Struct

from kproxy.controlplane.slices import PodIndex, SelectorIndex
from kproxy.model import ClusterNode, ClusterState, NamespacedName, Pod, Workload

LONGEST = 100
"""The maximum length of a selector in a sentence."""
NAMED = 3
"""The maximum number of workloads in a sentence."""
NEEDED = (
    "kproxy starts no pods: `podman kube play` starts Pods and Deployments, and --pods-from podman finds "
    "them; for each other pod that runs, add a Pod with its labels and its address (status.podIP), or an "
    "EndpointSlice"
)


class Counts(NamedTuple):
    """Numbers of pods of a workload."""

    desired: int
    found: int
    ready: int


def own_pods(workload: Workload, pods: PodIndex) -> list[Pod]:
    """Return the pods that a workload counts, sorted by name."""
    found = pods.matching(workload.name.namespace, workload.selector)
    return sorted((pod for pod in found if not pod.terminating), key=lambda pod: pod.name)


def counted(workload: Workload, pods: PodIndex, nodes: Mapping[str, ClusterNode]) -> Counts:
    """Count the pods. `nodes` are the known Nodes; without any, there is only this node."""
    own = own_pods(workload, pods)
    return Counts(_desired(workload, nodes), len(own), sum(pod.ready for pod in own))


def _desired(workload: Workload, nodes: Mapping[str, ClusterNode]) -> int:
    if workload.replicas is not None:
        return workload.replicas
    if not nodes:
        return 1
    return sum(workload.node_selector.items() <= node.labels.items() for node in nodes.values())


def missing_pods(lacks: Iterable[Lack]) -> str:
    """Return which workloads want more pods than exist, and what is needed; "" if none does."""
    found = [lack.text for lack in lacks]
    if not found:
        return ""
    more = f"; {len(found) - NAMED} more workloads want pods" if len(found) > NAMED else ""
    return f"{'; '.join(found[:NAMED])}{more}. {NEEDED}"


def awaiting(lacks: Iterable[Lack]) -> set[NamespacedName]:
    """Return the Services whose pods are those of a workload that lacks pods."""
    return {name for lack in lacks for name in lack.services}


class Lack(Struct, frozen=True):
    """A workload that lacks pods."""

    text: str
    """As `lacking` returns it."""
    services: Collection[NamespacedName]
    """Those that select its pods."""


def find_lacks(state: ClusterState, pods: PodIndex, selectors: SelectorIndex) -> Iterator[Lack]:
    """Yield the workloads that lack pods. Those whose Services have explicit endpoints need none.

    `pods` and `selectors` are those of the pods and Services of `state`.
    """
    for workload in state.workloads:
        text = lacking(workload, counted(workload, pods, state.nodes))
        own = selectors.selecting(workload.name.namespace, workload.template) if text else ()
        if text and not (own and all(name in state.slices for name in own)):
            yield Lack(text, own)


def lacking(workload: Workload, counts: Counts) -> str:
    """Return for example `Deployment default/web wants 3 pods with app=web, and 0 exist`.

    It is "" if enough pods exist, or if another workload makes them.
    """
    if workload.owned or counts.found >= counts.desired:
        return ""
    what = "1 pod" if counts.desired == 1 else f"{counts.desired} pods"
    exist = "1 exists" if counts.found == 1 else f"{counts.found} exist"
    return f"{workload.kind} {workload.name} wants {what} with {selector_text(workload)}, and {exist}"


def selector_text(workload: Workload) -> str:
    """Return the selector of a workload, shortened."""
    text = ",".join(map(str, workload.selector.requirements)) or "no labels"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
