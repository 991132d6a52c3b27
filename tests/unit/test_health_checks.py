"""Health check node ports, and the number of ready endpoints on this node."""

from __future__ import annotations

from typing import Any

import pytest

from kproxy.decode import decode
from kproxy.model import ClusterState, EndpointSlice
from kproxy.resolve.health_checks import HealthChecks, local_ready
from tests.unit.make import as_json, name
from tests.unit.make import service as service_manifest

READY, DRAINING, DOWN = (
    {"ready": True},
    {"ready": False, "serving": True, "terminating": True},
    {"ready": False},
)


def state(*manifests: dict[str, Any]) -> ClusterState:
    decoded = decode([as_json(manifest) for manifest in manifests])
    assert not decoded.problems
    return decoded.state


def slice_(
    endpoints: list[tuple[str, dict[str, bool], str]], family: str = "IPv4", number: int = 1
) -> dict[str, Any]:
    """Return a slice. `endpoints` contains (address, conditions, node)."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"web-{family.lower()}-{number}",
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": family,
        "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}],
        "endpoints": [
            {"addresses": [address], "conditions": conditions, "nodeName": node}
            for address, conditions, node in endpoints
        ],
    }


def slices(*manifests: dict[str, Any]) -> tuple[EndpointSlice, ...]:
    return state(*manifests).slices.get(name("web"), ())


ONE, TWO = ("10.244.0.1", READY, "n1"), ("10.244.0.2", READY, "n1")


@pytest.mark.parametrize(
    ("manifests", "count"),
    [
        ([], 0),
        ([slice_([ONE, TWO])], 2),
        ([slice_([ONE]), slice_([ONE, TWO], number=2)], 2),
        ([slice_([ONE, ("10.244.1.1", READY, "n2")])], 1),
        ([slice_([("10.244.0.1", DRAINING, "n1"), ("10.244.0.2", DOWN, "n1")])], 0),
        ([slice_([ONE]), slice_([("fd00::1", READY, "n1"), ("fd00::2", READY, "n1")], "IPv6")], 2),
    ],
)
def test_ready_endpoints_on_this_node_count_once(manifests: list[dict[str, Any]], count: int) -> None:
    assert local_ready(slices(*manifests), "n1") == count


def balancer(own: str = "web", port: int = 32000, **spec: Any) -> dict[str, Any]:
    fields = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": port, **spec}
    return service_manifest(own, **fields)


def change(checks: HealthChecks, manifest: dict[str, Any] | None, *found: dict[str, Any]) -> bool:
    service = None if manifest is None else state(manifest).services[name(manifest["metadata"]["name"])]
    return checks.change(service.name if service else name("web"), service, slices(*found), "n1")


def test_ports_follow_their_services() -> None:
    checks = HealthChecks()
    assert change(checks, balancer(), slice_([ONE]))
    assert checks.served() == {32000: (name("web"), 1)}
    assert not change(checks, balancer(), slice_([ONE]))  # as before
    assert change(checks, balancer(), slice_([ONE, TWO]))
    assert checks.served() == {32000: (name("web"), 2)}
    assert change(checks, balancer("shop", 32001))
    assert checks.served() == {32000: (name("web"), 2), 32001: (name("shop"), 0)}
    assert change(checks, None)
    assert checks.served() == {32001: (name("shop"), 0)}


def test_only_load_balancers_with_policy_local_have_a_port() -> None:
    checks = HealthChecks()
    for own in (service_manifest(), service_manifest(type="LoadBalancer")):
        assert not change(checks, own, slice_([ONE]))
    assert change(checks, balancer(), slice_([ONE]))
    assert change(checks, service_manifest(), slice_([ONE]))  # its type changed
    assert checks.served() == {}
    elsewhere = balancer()
    elsewhere["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    assert not change(checks, elsewhere, slice_([ONE]))
