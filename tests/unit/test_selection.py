"""Warnings about Services that do not match their pods or endpoints."""

from __future__ import annotations

import logging
from ipaddress import ip_network
from typing import Any

import pytest

from kproxy.controlplane import slices
from kproxy.controlplane.ranges import Ranges
from kproxy.controlplane.slices import resolve_ports
from kproxy.model import EndpointPort, Pod, Service
from kproxy.observe.log import Reporter
from kproxy.problems import Problem
from tests.unit.make import manifest, resolved, service

RANGES = Ranges((ip_network("10.96.0.0/24"),), (30000, 32767))
WEB: dict[str, Any] = {"selector": {"app": "web"}}


def pod(own: str = "web-1", ip: str = "10.0.0.1", app: str = "web", **port: Any) -> dict[str, Any]:
    spec = {"containers": [{"ports": [{"containerPort": 8080, "name": "http", **port}]}]}
    status = {"podIP": ip} if ip else {}
    return manifest("Pod", own, metadata={"labels": {"app": app}}, spec=spec, status=status)


def to(*targets: int | str, **rest: Any) -> dict[str, Any]:
    """A Service with a port for each target."""
    ports = [{"name": f"p{n}", "port": 80 + n, "targetPort": t, **rest} for n, t in enumerate(targets)]
    return service(**WEB, ports=ports)


def endpoints(*names: str | None) -> dict[str, Any]:
    """An Endpoints object with ports of these names."""
    ports = [{"port": 8080, **({"name": own} if own else {})} for own in names]
    return manifest("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": ports}])


def named(*names: str | None) -> dict[str, Any]:
    """A Service with ports of these names."""
    return service(ports=[{"port": 80 + n, **({"name": own} if own else {})} for n, own in enumerate(names)])


def workload(app: str = "web", replicas: int = 1) -> dict[str, Any]:
    """A ReplicaSet whose pods have this label."""
    labels = {"app": app}
    template = {"metadata": {"labels": labels}, "spec": {}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": spec}


NO_PORT = "spec.ports[0].targetPort: no container port nix/tcp in Pod web-1"
NO_POD = "spec.selector: no pod in namespace default has the labels app=web"


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([service(**WEB)], [NO_POD]),
        ([service(**WEB), pod(app="wed")], [NO_POD]),
        ([service(**WEB), pod()], []),
        ([service()], []),
        ([service(**WEB, type="ExternalName", externalName="x.example")], []),
        ([service(**WEB, clusterIP="None")], [NO_POD]),
        # A workload that wants such pods is reported itself; one that wants others, or has enough, is not.
        ([service(**WEB), workload()], []),
        ([service(**WEB), workload("wed")], [NO_POD]),
        ([service(**WEB), workload(replicas=0)], [NO_POD]),
        ([to("nix"), workload(replicas=2), pod()], [NO_PORT]),
        ([to("http"), pod()], []),
        ([to("http", 9), pod()], []),
        (
            [to("http", "web"), pod()],
            ["spec.ports[1].targetPort: no container port web/tcp in Pod web-1"],
        ),
        (
            [to("http", protocol="UDP"), pod()],
            ["spec.ports[0].targetPort: no container port http/udp in Pod web-1"],
        ),
        (
            [to("http"), *(pod(f"w{n}", name="web") for n in range(5))],
            ["spec.ports[0].targetPort: no container port http/tcp in Pod w0, w1, w2 and 2 more"],
        ),
        (
            [service(**WEB), pod("a", ""), pod("b")],
            ["spec.selector: no address (status.podIPs) in Pod a"],
        ),
        ([service(**WEB), endpoints(None)], []),
        ([named("http"), endpoints("http", "more")], []),
        (
            [named("http"), endpoints(None)],
            ["spec.ports[0].name: its endpoints have no port named http, only an unnamed port"],
        ),
        (
            [named(None), endpoints("web")],
            ["spec.ports[0].name: its endpoints have no unnamed port, only web"],
        ),
        (
            [named("a", "b"), endpoints("a", "c")],
            ["spec.ports[1].name: its endpoints have no port named b, only a, c"],
        ),
        (
            [named("x"), endpoints("e", "d", "c", "b", "a")],
            ["spec.ports[0].name: its endpoints have no port named x, only a, b, c and 2 more"],
        ),
        ([named("a"), manifest("Endpoints", subsets=[])], []),
        ([endpoints("web")], []),
    ],
)
def test_a_mismatch_is_a_warning(objects: list[Any], expected: list[str]) -> None:
    outcome = resolved(objects, RANGES)
    assert outcome.problems == []
    assert [str(w) for w in outcome.warnings] == [
        f"in.yaml: Service default/web: {text}" for text in expected
    ]


def test_a_pod_is_compared_with_all_ports_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def counted(own: Service, pod: Pod) -> tuple[EndpointPort, ...]:
        compared.append(pod.name.name)
        return resolve_ports(own, pod)

    monkeypatch.setattr(slices, "resolve_ports", counted)
    resolved([to("http", "a", "b", "c"), pod("x"), pod("y")], RANGES)
    assert sorted(compared) == ["x", "x", "y", "y"]  # once for the slices, once for the warnings


def test_warnings_are_in_order_of_the_services() -> None:
    warnings = resolved([service(name, **WEB) for name in "cab"], RANGES).warnings
    assert [warning.object for warning in warnings] == [f"Service default/{name}" for name in "abc"]


# --- the log of `kproxy run` ---


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    lines = [(record.levelno, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return lines


def test_a_problem_is_logged_when_it_appears_changes_and_is_solved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    reporter = Reporter()
    first, second, other = (
        Problem("f", "a", "x", "1"),
        Problem("f", "a", "x", "2"),
        Problem("f", "a", "y", "1"),
    )
    reporter.problems([first])
    assert logged(caplog) == [(logging.WARNING, "f: a: x: 1")]
    reporter.problems([first, other])
    assert logged(caplog) == [(logging.WARNING, "f: a: y: 1")]
    reporter.problems([second, other])
    assert logged(caplog) == [(logging.WARNING, "f: a: x: 2")]
    reporter.problems([second])
    assert logged(caplog) == [(logging.INFO, "solved: f: a: y: 1")]
    reporter.problems([])
    assert logged(caplog) == [(logging.INFO, "solved: f: a: x: 2")]
