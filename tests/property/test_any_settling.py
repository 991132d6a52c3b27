"""Settling what changed gives the same as settling everything, for any sequence of changes."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kproxy.controlplane.ledger import NOTHING
from kproxy.controlplane.ranges import Ranges, parse_pool
from kproxy.controlplane.settle import Settled, Settler, settle
from kproxy.decode import Decoded, Decoder, Document, decode
from kproxy.model import Node, parse_address
from kproxy.sources.documents import parse
from tests.unit.make import manifest, service

RANGES = Ranges((ip_network("10.96.0.0/28"),), (30000, 30003), parse_pool("192.0.2.1-192.0.2.2"))
NODES = Node("n1", (parse_address("10.0.0.1"),)), Node("n1", (parse_address("10.0.0.2"),), zone="a")
NAMES = ("a", "b", "c")
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2)


def _service(own: str, spec: dict[str, Any]) -> dict[str, Any]:
    created = spec["created"]
    spec = {key: value for key, value in spec.items() if key != "created"}
    metadata = {"creationTimestamp": created} if created else {}
    return service(own, **spec, metadata=metadata)


def _pod(own: str, labels: dict[str, str], ip: str, ready: bool, host: bool) -> dict[str, Any]:
    status = {"podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]} if ip else {}
    ports = [{"name": "http", "containerPort": 8080}] if ready else []
    spec = {"containers": [{"name": "c", "ports": ports}], "hostNetwork": host}
    return manifest("Pod", own, metadata={"labels": labels}, spec=spec, status=status)


def _slice(own: str, of: str, ip: str, port: str) -> dict[str, Any]:
    return manifest(
        "EndpointSlice",
        own,
        apiVersion="discovery.k8s.io/v1",
        metadata={"labels": {"kubernetes.io/service-name": of}},
        addressType="IPv4",
        ports=[{"name": port, "port": 8080}],
        endpoints=[{"addresses": [ip]}],
    )


def _endpoints(own: str, ip: str) -> dict[str, Any]:
    return manifest("Endpoints", own, subsets=[{"addresses": [{"ip": ip}], "ports": [{"port": 8080}]}])


def _workload(own: str, labels: dict[str, str], replicas: int) -> dict[str, Any]:
    template = {"metadata": {"labels": labels}, "spec": {}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return manifest("ReplicaSet", own, apiVersion="apps/v1", spec=spec)


def _list(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": items}


def parsed(file: str, content: dict[str, Any]) -> Document:
    """The document of a file of JSON."""
    (document,) = parse(f"{file}.json", json.dumps(content).encode())
    assert isinstance(document, Document)
    return document


addresses = st.sampled_from(["10.1.0.1", "10.1.0.2", "10.1.0.3"])
service_specs = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["ClusterIP", "ClusterIP", "NodePort", "LoadBalancer"]),
        "selector": LABELS,
        "created": st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]),
        "ports": st.tuples(
            st.sampled_from(["http", "sql"]), st.integers(80, 82), st.sampled_from([8080, "http", "none"])
        ).map(lambda port: [{"name": port[0], "port": port[1], "targetPort": port[2]}]),
    },
    optional={
        "clusterIP": st.sampled_from(["10.96.0.1", "10.96.0.2", "None", "wrong", "10.97.0.1"]),
        "publishNotReadyAddresses": st.booleans(),
        "loadBalancerIP": st.sampled_from(["192.0.2.1", "192.0.2.9"]),
        "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
    },
)
own = st.sampled_from(NAMES)


def some_service(own: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(_service, st.just(own), service_specs)


def some_pod(own: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(_pod, st.just(own), LABELS, addresses | st.just(""), st.booleans(), st.booleans())


def some_slice(of: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(_slice, st.just(of), st.just(of), addresses, st.sampled_from(["http", "sql"]))


others = st.one_of(
    own.flatmap(some_service),
    own.flatmap(some_pod),
    own.flatmap(some_slice),
    st.builds(_endpoints, own, addresses),
    st.builds(_workload, own, LABELS, st.integers(0, 2)),
    st.builds(lambda own: manifest("Node", own, metadata={"labels": {"zone": own}}), own),
    st.builds(lambda kind, own: manifest(kind, own, spec=1), st.sampled_from(["Service", "Pod"]), own),
)
lists = st.lists(others | st.lists(others, max_size=2).map(_list), max_size=3).map(_list)
FILES: dict[str, st.SearchStrategy[dict[str, Any] | None]] = {
    "0": some_service("a"),
    "1": some_service("b"),
    "2": some_pod("a"),
    "3": some_pod("b"),
    "4": some_slice("b"),
    "5": others | st.none(),
    "6": st.builds(_workload, st.just("a"), LABELS, st.integers(0, 2)) | st.none(),
    "7": lists | st.none(),
}
"""What each file may contain. Most changes replace an object by another one of the same name."""
changes = st.sampled_from(sorted(FILES)).flatmap(lambda file: FILES[file].map(lambda found: {file: found}))
first = st.fixed_dictionaries({file: found for file, found in FILES.items() if file < "4"})
nodes = st.sampled_from((*NODES[:1] * 5, NODES[1]))
steps = st.tuples(first, st.lists(st.tuples(changes, nodes), min_size=1, max_size=12))


def decoded(found: Decoded) -> tuple[Any, ...]:
    """Everything that was decoded, with the order of what has one."""
    state = found.state
    orders = state.services.items(), state.slices.items(), state.nodes.items(), state.pods, state.workloads
    unreadable = vars(found.unreadable)
    return *map(list, orders), found.problems, found.warnings, found.ignored, found.counts, unreadable


def shown(settled: Settled) -> tuple[Any, ...]:
    """Everything that was settled, with the order of what has one."""
    orders = settled.services.items(), settled.slices.items(), settled.refused.items()
    released, held = settled.allocations.released.items(), settled.allocations.held
    lists = settled.problems, settled.warnings, settled.notes
    protected = [name for name in settled.services if settled.protected(name)]
    return *map(list, orders), list(released), held, *lists, protected


@settings(max_examples=80)
@given(steps)
def test_what_changed_is_settled_as_everything_is(
    steps: tuple[dict[str, Any], list[tuple[dict[str, Any], Node]]],
) -> None:
    decoder, settler, past, folder = Decoder(), Settler(), NOTHING, dict[str, Document]()
    for change, node in ((steps[0], NODES[0]), *steps[1]):
        folder |= {file: parsed(file, found) for file, found in change.items() if found}
        folder = {file: folder[file] for file in sorted(folder) if change.get(file, True) is not None}
        now, again = decoder.decode(folder.values()), decode(folder.values())
        assert decoded(now) == decoded(again)
        settled = settler.settle(now, past, RANGES, node)
        assert shown(settled) == shown(settle(again, past, RANGES, node))
        past = settled.allocations
