"""Describes a workload as `kubectl describe` does: its template and pods, and how many are missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.controlplane.workloads import Counts, lacking, own_pods
from kproxy.model import Pod, Workload, format_address
from kproxy.printable import printable
from kproxy.show.describe.context import Context, annotation_lines, heading, indented, multiline, section
from kproxy.show.describe.pod import container_lines
from kproxy.show.tables import NONE, UNKNOWN, WorkloadView, cut, labels, table
from kproxy.show.workloads import selector

SHOWN = 10
"""The maximum number of addresses and Services to show."""


def describe_workload(view: WorkloadView, context: Context) -> str:
    """Return the description."""
    workload, pods = view.workload, own_pods(view.workload, context.pods)
    lines = [
        *heading(workload.name, workload.labels),
        *annotation_lines(workload.annotations, context),
        ("Selector:", selector(workload)),
        *_numbers(view),
        ("Pods Status:", _phases(pods)),
        ("Services:", cut(_services(workload, context), SHOWN) or NONE),
    ]
    problems = context.problems(workload.kind, workload.name)
    if lacks := lacking(workload, view.counts):
        problems = [lacks, *problems]
    return (
        table(lines, gap=2)
        + "Pod Template:\n"
        + indented(_template(workload), 2)
        + section("Pods", table([_pod(pod) for pod in pods], gap=2))
        + section("Problems", problems)
    )


def _numbers(view: WorkloadView) -> Iterator[tuple[str, str]]:
    desired, found, ready = view.counts
    match view.workload.kind:
        case "Deployment":
            unavailable = max(0, desired - ready)
            yield (
                "Replicas:",
                f"{desired} desired | {found} updated | {found} total | {ready} available | "
                f"{unavailable} unavailable",
            )
        case "StatefulSet":
            yield "Replicas:", f"{desired} desired | {found} total"
        case "DaemonSet":
            yield from _daemon_numbers(view.workload, view.counts)
        case _:
            yield "Replicas:", f"{found} current / {desired} desired"


def _daemon_numbers(workload: Workload, counts: Counts) -> Iterator[tuple[str, str]]:
    yield "Node-Selector:", labels(workload.node_selector)
    yield "Desired Number of Nodes Scheduled:", str(counts.desired)
    yield "Current Number of Nodes Scheduled:", str(counts.found)
    yield "Number of Nodes Scheduled with Available Pods:", str(counts.ready)


def _phases(pods: list[Pod]) -> str:
    waiting = sum(pod.phase == "Pending" for pod in pods)
    return f"{len(pods) - waiting} Running / {waiting} Waiting / 0 Succeeded / 0 Failed"


def _services(workload: Workload, context: Context) -> list[str]:
    """Return the Services that select the pods of the template."""
    return [
        service.name.name
        for service in context.objects.services
        if service.name.namespace == workload.name.namespace
        and context.uses_selector(service)
        and service.selector.items() <= workload.template.items()
    ]


def _template(workload: Workload) -> str:
    lines = multiline("Labels:", [f"{key}={text}" for key, text in sorted(workload.template.items())])
    containers = "".join(
        f"{printable(each.name) or UNKNOWN}:\n" + indented(table(container_lines(each), gap=2), 2)
        for each in workload.containers
    )
    return table(lines, gap=2) + section("Containers", containers)


def _pod(pod: Pod) -> tuple[str, str, str]:
    addresses = ",".join(map(format_address, pod.addresses)) or "no address"
    return pod.name.name, addresses, "ready" if pod.ready else "not ready"
