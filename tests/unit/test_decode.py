"""Objects -> model, and the problem of each invalid object with its file, object and field."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from kproxy.decode import Decoded, Decoder, Document, decode
from kproxy.decode.fields import plain_address
from kproxy.decode.leaves import Leaves
from kproxy.model import (
    Balance,
    ClusterNode,
    Container,
    EndedPod,
    Endpoint,
    EndpointPort,
    ExecAction,
    Family,
    GRPCAction,
    HTTPGetAction,
    NodeInfo,
    Origin,
    Pod,
    Probe,
    ProbePort,
    Protocol,
    Service,
    ServicePort,
    Taint,
    TCPSocketAction,
    format_address,
    parse_address,
)
from kproxy.sources.documents import parse
from tests.unit.make import as_json, manifest, name, service


def one(content: Any) -> Decoded:
    """Decode an object from YAML and from JSON, and check that the results agree."""
    loaded, text = decode([Document("f", content)]), decode([as_json(content, "f")])
    assert (loaded.state, loaded.problems, loaded.warnings) == (text.state, text.problems, text.warnings)
    assert vars(loaded.unreadable) == vars(text.unreadable)
    return loaded


def the_service(**spec: Any) -> Service:
    result = one(service(**spec))
    assert result.problems == []
    return result.state.services[name("web")]


def slice_(own_name: str = "web-1", of: str = "web", **rest: Any) -> dict[str, Any]:
    metadata = {"labels": {"kubernetes.io/service-name": of}, **rest.pop("metadata", {})}
    defaults = {"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": [{"addresses": ["10.0.0.1"]}]}
    return manifest("EndpointSlice", own_name, metadata=metadata, **{**defaults, **rest})


# --- valid objects ---


def test_defaults_of_a_service() -> None:
    assert the_service() == Service(
        name=name("web"),
        origin=Origin("f", ""),
        type="ClusterIP",
        ports=(ServicePort("", Protocol.TCP, 80, 80, 0),),
        selector={},
        cluster_ips=(),
        headless=False,
        families=(),
        family_policy="",
        affinity_timeout=None,
        publish_not_ready=False,
    )


NULLS = {
    "type": None, "selector": None, "clusterIP": None, "clusterIPs": None, "ipFamilies": None,
    "ipFamilyPolicy": None, "sessionAffinity": None, "sessionAffinityConfig": None, "publishNotReadyAddresses": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [
        NULLS,
        {"clusterIP": "", "clusterIPs": [], "sessionAffinity": "None", "type": ""},
        {"unknown": {"field": 1}},
    ],
)
def test_null_empty_and_unknown_fields_count_as_absent(spec: dict[str, Any]) -> None:
    assert the_service(**spec) == the_service()


LOCAL: dict[str, Any] = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


@pytest.mark.parametrize(
    ("spec", "field", "value"),
    [
        ({"type": "NodePort"}, "type", "NodePort"),
        ({"clusterIP": "None"}, "headless", True),
        ({"clusterIPs": ["None"]}, "headless", True),
        ({"clusterIP": "None", "ports": []}, "ports", ()),
        ({"type": "ExternalName", "ports": None, "externalName": "x.org"}, "ports", ()),
        ({"selector": {"app": "web"}}, "selector", {"app": "web"}),
        ({"clusterIP": "10.96.0.9"}, "cluster_ips", (parse_address("10.96.0.9"),)),
        ({"clusterIPs": ["fd00::9", "10.96.0.9"]}, "cluster_ips", (parse_address("fd00::9"), parse_address("10.96.0.9"))),
        ({"ipFamilies": ["IPv6", "IPv4"]}, "families", (Family.IPV6, Family.IPV4)),
        ({"ipFamilyPolicy": "PreferDualStack"}, "family_policy", "PreferDualStack"),
        ({"sessionAffinity": "ClientIP"}, "affinity_timeout", 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": None}}, "affinity_timeout", 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}, "affinity_timeout", 1),
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}, "affinity_timeout", None),
        ({"publishNotReadyAddresses": True}, "publish_not_ready", True),
        ({"internalTrafficPolicy": "Local"}, "internal_local", True),
        ({"internalTrafficPolicy": "Cluster"}, "internal_local", False),
        ({"externalTrafficPolicy": "Local"}, "external_local", True),
        ({"externalTrafficPolicy": "Cluster"}, "external_local", False),
        ({"externalIPs": ["198.51.100.1", "2001:db8::9"]}, "external_ips", (parse_address("198.51.100.1"), parse_address("2001:db8::9"))),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8", " fd00::/8 "]}, "source_ranges", (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
        ({"loadBalancerSourceRanges": ["10.1.2.3/8"]}, "source_ranges", (ip_network("10.0.0.0/8"),)),
        ({"loadBalancerSourceRanges": ["10.1.2.3"]}, "source_ranges", (ip_network("10.1.2.3/32"),)),
        ({"allocateLoadBalancerNodePorts": False}, "allocate_node_ports", False),
        ({"allocateLoadBalancerNodePorts": True}, "allocate_node_ports", True),
        ({"trafficDistribution": "PreferSameZone"}, "distribution", "PreferSameZone"),
        ({**LOCAL, "healthCheckNodePort": 30100}, "health_check_node_port", 30100),
        ({**LOCAL, "healthCheckNodePort": 0}, "health_check_node_port", 0),
        ({**LOCAL, "healthCheckNodePort": None}, "health_check_node_port", 0),
        ({"type": "LoadBalancer", "healthCheckNodePort": 30100}, "health_check_node_port", 0),
        ({**LOCAL, "type": "NodePort", "healthCheckNodePort": 30100}, "health_check_node_port", 0),
        ({"type": "LoadBalancer", "loadBalancerIP": "lb.example.com"}, "load_balancer_ip", "lb.example.com"),
        ({"type": "LoadBalancer", "loadBalancerIP": None}, "load_balancer_ip", ""),
        ({"type": "NodePort", "loadBalancerIP": "192.0.2.1"}, "load_balancer_ip", ""),
        ({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"}, "load_balancer_class", "example.com/lb"),
        ({"type": "NodePort", "loadBalancerClass": "example.com/lb"}, "load_balancer_class", ""),
    ],
)  # fmt: skip
def test_a_field_of_a_service(spec: dict[str, Any], field: str, value: object) -> None:
    assert getattr(the_service(**spec), field) == value


@pytest.mark.parametrize(
    ("kind", "allocate", "wants"),
    [
        ("ClusterIP", True, False),
        ("NodePort", True, True),
        ("NodePort", False, True),
        ("LoadBalancer", None, True),
        ("LoadBalancer", True, True),
        ("LoadBalancer", False, False),
    ],
)
def test_which_services_get_node_ports(kind: str, allocate: bool | None, wants: bool) -> None:
    assert the_service(type=kind, allocateLoadBalancerNodePorts=allocate).wants_node_ports is wants


def labelled(status: Any = None, kind: str = "LoadBalancer", **metadata: Any) -> dict[str, Any]:
    """A Service with a status, and labels or annotations."""
    spec = {"type": kind, "ports": [{"port": 80}]}
    return manifest("Service", metadata=metadata, spec=spec, status=status)


def found_service(content: dict[str, Any]) -> Service:
    result = one(content)
    assert result.problems == []
    return result.state.services[name("web")]


def ingress(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"loadBalancer": {"ingress": list(entries)}}


@pytest.mark.parametrize(
    ("status", "ips"),
    [
        (None, []),
        ({}, []),
        ({"loadBalancer": None}, []),
        ({"loadBalancer": {}}, []),
        (ingress(), []),
        (ingress({"ip": "198.51.100.1"}), ["198.51.100.1"]),
        (ingress({"ip": "198.51.100.1", "ipMode": "VIP"}), ["198.51.100.1"]),
        (ingress({"ip": "198.51.100.1", "ipMode": None}), ["198.51.100.1"]),
        (ingress({"ip": "198.51.100.1", "ipMode": "Proxy"}), []),
        (ingress({"hostname": "lb.example.com"}, {"ip": ""}, {"ip": "2001:db8::9"}), ["2001:db8::9"]),
        (ingress({"ip": "198.51.100.1", "ipMode": "Proxy"}, {"ip": "198.51.100.2"}), ["198.51.100.2"]),
    ],
)
def test_the_addresses_of_a_load_balancer(status: dict[str, Any] | None, ips: list[str]) -> None:
    assert list(map(format_address, found_service(labelled(status)).load_balancer_ips)) == ips
    for kind in ("ClusterIP", "NodePort"):  # the status of an earlier version with type LoadBalancer
        assert found_service(labelled(status, kind)).load_balancer_ips == ()


@pytest.mark.parametrize(
    ("metadata", "field", "value"),
    [
        ({}, "proxied_elsewhere", False),
        ({"labels": {"service.kubernetes.io/service-proxy-name": ""}}, "proxied_elsewhere", True),
        ({"labels": {"service.kubernetes.io/service-proxy-name": "other"}}, "proxied_elsewhere", True),
        ({"annotations": None}, "weights", {}),
        ({"annotations": {"kproxy.io/weights": ""}}, "weights", {}),
        ({"annotations": {"kproxy.io/weights": "web-1=3"}}, "weights", {"web-1": 3}),
        ({"annotations": {"kproxy.io/weights": " web-1 = 3 ,10.0.0.7=100,, fd00::1=1,"}}, "weights", {"web-1": 3, "10.0.0.7": 100, "fd00::1": 1}),
        ({"annotations": {"kproxy.io/consistent-hash": "client"}}, "hashing", Balance.CLIENT),
        ({"annotations": {"kproxy.io/consistent-hash": "client-port"}}, "hashing", Balance.CLIENT_PORT),
        ({"annotations": {"example.com/consistent-hash": "client"}}, "hashing", None),
    ],
)  # fmt: skip
def test_labels_and_annotations_of_a_service(metadata: dict[str, Any], field: str, value: object) -> None:
    assert getattr(found_service(labelled(**metadata)), field) == value


NOT_A_WEIGHT = "is not ENDPOINT=WEIGHT with a weight from 1 to 100"
WEIGHTS, HASH = "kproxy.io/weights", "kproxy.io/consistent-hash"


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        (WEIGHTS, "web-1", f"'web-1' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=", f"'web-1=' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=0", f"'web-1=0' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=-1", f"'web-1=-1' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=1000", f"'web-1=1000' {NOT_A_WEIGHT}"),
        (WEIGHTS, "we b=1", f"'we b=1' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=101", f"'web-1=101' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=1.5", f"'web-1=1.5' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=²", f"'web-1=²' {NOT_A_WEIGHT}"),
        (WEIGHTS, "web-1=" + "9" * 5000, f"'web-1={'9' * 5000}' {NOT_A_WEIGHT}"),
        (WEIGHTS, "a=1,=2", f"'=2' {NOT_A_WEIGHT}"),
        (WEIGHTS, "a=1, b=x", f"'b=x' {NOT_A_WEIGHT}"),
        (HASH, "", "'' is not one of client, client-port"),
        (HASH, "Client", "'Client' is not one of client, client-port"),
    ],
)
def test_an_invalid_annotation_is_ignored(annotation: str, text: str, message: str) -> None:
    """An API server accepts any text. So it must not keep the Service from being served."""
    result = one(labelled(annotations={annotation: text}))
    field = f"metadata.annotations[{annotation}]"
    assert result.warnings == [("f", "Service default/web", field, f"{message}: ignored")]
    assert result.problems == []
    assert result.state.services[name("web")].hashing is None


def test_the_valid_weights_beside_an_invalid_one() -> None:
    assert found_service(labelled(annotations={WEIGHTS: "a=2, b=x, c=3"})).weights == {"a": 2, "c": 3}


def test_consistent_hashing_excludes_affinity() -> None:
    content = labelled(annotations={HASH: "client"})
    content["spec"]["sessionAffinity"] = "ClientIP"
    result = one(content)
    field, message = f"metadata.annotations[{HASH}]", "cannot be combined with spec.sessionAffinity: ClientIP"
    assert result.warnings == [("f", "Service default/web", field, f"{message}: ignored")]
    assert result.state.services[name("web")].affinity_timeout == 10800


@pytest.mark.parametrize(
    ("rest", "field", "value"),
    [
        ({}, "pod", ""),
        ({"targetRef": None}, "pod", ""),
        ({"targetRef": {"kind": "Pod", "name": "web-1"}}, "pod", "web-1"),
        ({"targetRef": {"kind": "Pod"}}, "pod", ""),
        ({"targetRef": {"kind": "VirtualMachine", "name": "web-1"}}, "pod", ""),
        ({"hints": None}, "for_zones", ()),
        ({"hints": {"forZones": None, "forNodes": []}}, "for_nodes", ()),
        ({"hints": {"forZones": [{"name": "a"}, {"name": "b"}]}}, "for_zones", ("a", "b")),
        ({"hints": {"forNodes": [{"name": "n1"}]}}, "for_nodes", ("n1",)),
        ({"nodeName": "n1"}, "node", "n1"),
        ({"nodeName": "N1.Example"}, "node", "n1.example"),
        ({"nodeName": None}, "node", ""),
    ],
)
def test_a_field_of_an_endpoint(rest: dict[str, Any], field: str, value: object) -> None:
    (found,) = one(slice_(endpoints=[{"addresses": ["10.0.0.1"], **rest}])).state.slices[name("web")]
    assert getattr(found.endpoints[0], field) == value


def test_the_pods_of_legacy_endpoints() -> None:
    addresses = [{"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": "web-1"}}]
    slices = one(subset(addresses=addresses)).state.slices[name("web")]
    assert [endpoint.pod for part in slices for endpoint in part.endpoints] == ["web-1"]


ZONE = {"labels": {"topology.kubernetes.io/zone": "a"}}


@pytest.mark.parametrize(
    ("rest", "node"),
    [
        ({}, ("", ())),
        ({"spec": None, "metadata": {"labels": None}}, ("", ())),
        ({"metadata": ZONE}, ("a", ())),
        ({"spec": {"podCIDR": "10.1.0.0/24"}}, ("", ("10.1.0.0/24",))),
        ({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]}}, ("", ("10.1.0.0/24", "fd00:1::/64"))),
        ({"spec": {"podCIDR": "", "podCIDRs": []}, "status": {"addresses": []}}, ("", ())),
    ],
)  # fmt: skip
def test_a_node(rest: dict[str, Any], node: tuple[str, tuple[str, ...]]) -> None:
    result = one(manifest("Node", "n1", **rest))
    assert result.problems == []
    zone, cidrs = node
    (found,) = result.state.nodes.values()
    assert (found.name, found.zone, found.pod_cidrs) == ("n1", zone, tuple(map(ip_network, cidrs)))


def test_fields_of_a_node_for_views() -> None:
    taint = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
    status = {
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "n1"}],
        "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "Unknown"}],
        "nodeInfo": {"kubeletVersion": "v1.31.0", "osImage": "Debian", "kernelVersion": "6.1"},
    }
    metadata = {"labels": {"a": "b"}, "creationTimestamp": "2026-01-05T09:30:00Z"}
    spec = {"unschedulable": True, "taints": [taint]}
    (found,) = one(manifest("Node", "n1", metadata=metadata, spec=spec, status=status)).state.nodes.values()
    assert found == ClusterNode(
        "n1",
        "",
        (),
        Origin("f", "2026-01-05T09:30:00Z"),
        labels={"a": "b"},
        addresses=(("InternalIP", "192.0.2.1"), ("Hostname", "n1")),
        ready="Unknown",
        unschedulable=True,
        taints=(Taint("dedicated", "db", "NoSchedule"),),
        info=NodeInfo("v1.31.0", "Debian", "6.1"),
    )
    assert [str(each) for each in found.taints] == ["dedicated=db:NoSchedule"]


@pytest.mark.parametrize("kind", ["Service", "Pod", "EndpointSlice", "Endpoints", "Ingress", "Node"])
def test_annotations_without_kubectls_last_applied_configuration(kind: str) -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "x"}
    needed: dict[str, dict[str, Any]] = {
        "Service": {"spec": {"ports": [{"port": 80}]}},
        "EndpointSlice": {"addressType": "IPv4"},
        "Ingress": {"spec": {"defaultBackend": {"resource": {"kind": "A", "name": "b"}}}},
    }
    labels = {"kubernetes.io/service-name": "web"}
    given = manifest(kind, metadata={"annotations": annotations, "labels": labels}, **needed.get(kind, {}))
    given["apiVersion"] = "networking.k8s.io/v1" if kind == "Ingress" else given["apiVersion"]
    state = one(given).state
    slices = [slice_ for of in state.slices.values() for slice_ in of]
    objects: list[Any] = [*state.services.values(), *slices, *state.pods, *state.ingresses]
    objects += state.nodes.values()
    assert [each.annotations for each in objects] == ['{"note":"x"}']


@pytest.mark.parametrize(
    ("rest", "leaving"),
    [
        ({"spec": {"taints": None}}, False),
        ({"spec": {"unschedulable": True, "taints": [{"key": "node.kubernetes.io/unschedulable"}]}}, False),
        ({"spec": {"taints": [{"key": "a"}, {"key": "ToBeDeletedByClusterAutoscaler", "value": "1"}]}}, True),
        ({"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}, True),
    ],
)
def test_a_node_that_is_leaving(rest: dict[str, Any], leaving: bool) -> None:
    assert one(manifest("Node", "n1", **rest)).state.nodes["n1"].leaving is leaving


@pytest.mark.parametrize(
    ("entry", "port"),
    [
        ({"port": 80}, ServicePort("", Protocol.TCP, 80, 80, 0)),
        ({"port": 80, "targetPort": 8080}, ServicePort("", Protocol.TCP, 80, 8080, 0)),
        ({"port": 80, "targetPort": 0}, ServicePort("", Protocol.TCP, 80, 80, 0)),
        ({"port": 80, "targetPort": ""}, ServicePort("", Protocol.TCP, 80, 80, 0)),
        ({"port": 80, "targetPort": "http"}, ServicePort("", Protocol.TCP, 80, "http", 0)),
        ({"port": 53, "protocol": "UDP", "name": "dns"}, ServicePort("dns", Protocol.UDP, 53, 53, 0)),
        ({"port": 53, "protocol": None, "name": None}, ServicePort("", Protocol.TCP, 53, 53, 0)),
        ({"port": 9, "protocol": "SCTP", "nodePort": 30009}, ServicePort("", Protocol.SCTP, 9, 9, 30009)),
        ({"port": 65535, "nodePort": 0}, ServicePort("", Protocol.TCP, 65535, 65535, 0)),
    ],
)
def test_a_port_of_a_service(entry: dict[str, Any], port: ServicePort) -> None:
    assert the_service(ports=[entry]).ports == (port,)


@pytest.mark.parametrize(
    ("conditions", "endpoint"),
    [
        (None, (True, True, False)),
        ({}, (True, True, False)),
        ({"ready": None, "serving": None, "terminating": None}, (True, True, False)),
        ({"ready": False}, (False, False, False)),
        ({"ready": False, "serving": True, "terminating": True}, (False, True, True)),
        ({"ready": True, "serving": False}, (True, False, False)),
    ],
)
def test_the_conditions_of_an_endpoint(
    conditions: dict[str, Any] | None, endpoint: tuple[bool, bool, bool]
) -> None:
    endpoints = [{"addresses": ["10.0.0.1"], "conditions": conditions, "nodeName": "n"}]
    (found,) = one(slice_(endpoints=endpoints)).state.slices[name("web")]
    assert found.endpoints == (Endpoint(parse_address("10.0.0.1"), *endpoint, "n"),)


@pytest.mark.parametrize(
    ("rest", "ports"),
    [
        ({}, [("", Protocol.TCP, 80)]),
        ({"ports": [{"name": "dns", "protocol": "UDP", "port": 53}, {"name": "any"}]}, [("dns", Protocol.UDP, 53)]),
        ({"ports": None, "endpoints": None}, []),
    ],
)  # fmt: skip
def test_the_ports_of_a_slice(rest: dict[str, Any], ports: list[tuple[str, Protocol, int]]) -> None:
    (found,) = one(slice_(**rest)).state.slices[name("web")]
    assert found.ports == tuple(EndpointPort(*port) for port in ports)


@pytest.mark.parametrize(
    "content",
    [
        slice_(addressType="FQDN", endpoints=[{"addresses": ["x.org"]}]),
        slice_(metadata={"labels": {}}),
        slice_(metadata={"labels": None}),
        manifest("Pod", status={"phase": "Succeeded"}),
        manifest("Pod", status={"phase": "Failed"}),
    ],
)
def test_objects_without_endpoints_are_ignored_without_a_problem(content: dict[str, Any]) -> None:
    result = one(content)
    assert (result.problems, result.state.slices, result.state.pods) == ([], {}, ())


def test_pods_that_have_ended_are_kept_apart() -> None:
    state = one(manifest("Pod", "job", metadata={"labels": {"app": "x"}}, status={"phase": "Failed"})).state
    assert (state.pods, state.ended_pods) == ((), (EndedPod(name("job"), {"app": "x"}, "Failed"),))


def test_endpoints_become_a_slice_per_subset_and_family() -> None:
    first = {
        "addresses": [{"ip": "13.250.94.254"}, {"ip": "fd00::1", "nodeName": "N"}],
        "notReadyAddresses": [{"ip": "13.229.188.59"}],
        "ports": [{"port": 80}],
    }
    second = {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "x", "port": 81}]}
    slices = one(manifest("Endpoints", subsets=[first, second])).state.slices[name("web")]
    found = [
        (
            s.family,
            [p.port for p in s.ports],
            [(format_address(e.address), e.ready, e.node) for e in s.endpoints],
        )
        for s in slices
    ]
    assert found == [
        (Family.IPV4, [], []),
        (Family.IPV4, [80], [("13.250.94.254", True, ""), ("13.229.188.59", False, "")]),
        (Family.IPV6, [80], [("fd00::1", True, "n")]),
        (Family.IPV4, [81], [("10.0.0.1", True, "")]),
    ]
    assert all(s.legacy for s in slices)


@pytest.mark.parametrize(
    "content",
    [
        slice_(endpoints=[{"addresses": ["10.0.0.1"], "hostname": "first"}]),
        manifest("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.1", "hostname": "first"}]}]),
    ],
)
def test_the_host_name_of_an_endpoint(content: dict[str, Any]) -> None:
    *_, found = one(content).state.slices[name("web")]
    assert [endpoint.hostname for endpoint in found.endpoints] == ["first"]


def test_an_endpoints_object_without_subsets_has_a_slice() -> None:
    (found,) = one(manifest("Endpoints")).state.slices[name("web")]
    assert (found.endpoints, found.legacy) == ((), True)


def test_slices_replace_endpoints() -> None:
    legacy = manifest("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.9"}], "ports": [{"port": 80}]}])
    result = decode([Document("f", legacy), Document("f", slice_())])
    assert [s.legacy for s in result.state.slices[name("web")]] == [False]


def pod(**rest: Any) -> Pod:
    result = one(manifest("Pod", "p", **rest))
    assert result.problems == []
    return result.state.pods[0]


def condition(status: str, kind: str = "Ready") -> dict[str, Any]:
    return {"podIP": "10.0.0.1", "conditions": [{"type": kind, "status": status}]}


@pytest.mark.parametrize(
    ("rest", "field", "value"),
    [
        ({}, "addresses", ()),
        ({"spec": None, "status": None}, "ready", True),
        ({"status": condition("True")}, "ready", True),
        ({"status": condition("False")}, "ready", False),
        ({"status": condition("Unknown")}, "ready", False),
        ({"status": condition("False", "Initialized")}, "ready", True),
        ({"status": {"podIP": "10.0.0.1"}}, "addresses", ("10.0.0.1",)),
        ({"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}, "addresses", ("10.0.0.1", "fd00::1")),
        ({"metadata": {"labels": {"a": "b"}}}, "labels", {"a": "b"}),
        ({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, "terminating", True),
        ({"spec": {"nodeName": "n1"}}, "node", "n1"),
        ({"spec": {"nodeName": "N1.Example"}}, "node", "n1.example"),
        ({"spec": {"hostname": "first"}}, "hostname", "first"),
        ({"spec": {"subdomain": "db"}}, "subdomain", "db"),
        ({"spec": {"containers": [{"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}]}}, "ports", (("http", "tcp", 80),)),
    ],
)  # fmt: skip
def test_a_field_of_a_pod(rest: dict[str, Any], field: str, value: object) -> None:
    found = getattr(pod(**rest), field)
    assert (tuple(map(format_address, found)) if field == "addresses" else found) == value


@pytest.mark.parametrize(
    ("rest", "field", "value"),
    [
        ({"metadata": {"uid": "6b2c"}}, "uid", "6b2c"),
        ({"spec": {"containers": [{"name": "a", "image": "web:1", "ports": [{"containerPort": 80}]}]}}, "containers", (Container("a", "web:1", (EndpointPort("", Protocol.TCP, 80),)),)),
        ({"spec": {"initContainers": [{"name": "once"}, {"name": "sidecar", "restartPolicy": "Always"}]}}, "containers", (Container("sidecar"),)),
        ({"status": {"containerStatuses": [{"ready": True, "restartCount": 2}, {}]}}, "counts", (1, 2, 2)),
        ({"spec": {"readinessGates": []}}, "gates_open", True),
        ({"spec": {"readinessGates": [{"conditionType": "lb"}]}}, "gates_open", False),
        ({"spec": {"readinessGates": [{"conditionType": "lb"}]}, "status": condition("False", "lb")}, "gates_open", False),
        ({"spec": {"readinessGates": [{"conditionType": "lb"}]}, "status": condition("True", "lb")}, "gates_open", True),
    ],
)  # fmt: skip
def test_a_field_of_a_pod_that_probes_need(rest: dict[str, Any], field: str, value: object) -> None:
    assert getattr(pod(**rest), field) == value


LS = {"exec": {"command": ["ls", "/var/ready"]}}
WEB = ProbePort("web", 8080)
"""A port of the container in `probed`."""


def probed(**probe: Any) -> dict[str, Any]:
    """A Pod with a readinessProbe."""
    ports = [{"name": "web", "containerPort": 8080}, {"name": "90", "containerPort": 9090}]
    return manifest("Pod", "p", spec={"containers": [{"name": "c", "ports": ports, "readinessProbe": probe}]})


@pytest.mark.parametrize(
    ("manifest_probe", "probe"),
    [
        (LS, Probe(ExecAction(("ls", "/var/ready")), 0, 10, 1, 1, 3)),
        ({**LS, "initialDelaySeconds": 1, "periodSeconds": 2, "timeoutSeconds": 3, "successThreshold": 4, "failureThreshold": 5}, Probe(ExecAction(("ls", "/var/ready")), 1, 2, 3, 4, 5)),
        ({**LS, "initialDelaySeconds": 0, "periodSeconds": 0, "timeoutSeconds": 0, "successThreshold": 0, "failureThreshold": 0}, Probe(ExecAction(("ls", "/var/ready")), 0, 10, 1, 1, 3)),
        ({"httpGet": {"port": 80}}, Probe(HTTPGetAction(ProbePort(80, 80), "/", "", "HTTP", ()))),
        ({"httpGet": {"port": "web", "path": "ready?full", "host": "x.org", "scheme": "HTTPS", "httpHeaders": [{"name": "Host", "value": "y"}, {"name": "X"}]}},
         Probe(HTTPGetAction(WEB, "ready?full", "x.org", "HTTPS", (("Host", "y"), ("X", ""))))),
        ({"tcpSocket": {"port": "web"}}, Probe(TCPSocketAction(WEB))),
        ({"tcpSocket": {"port": 1, "host": "10.0.0.9"}}, Probe(TCPSocketAction(ProbePort(1, 1), "10.0.0.9"))),
        ({"tcpSocket": {"port": "90"}}, Probe(TCPSocketAction(ProbePort("90", 9090)))),
        ({"tcpSocket": {"port": "91"}}, Probe(TCPSocketAction(ProbePort("91", 91)))),
        ({"tcpSocket": {"port": "admin"}}, Probe(TCPSocketAction(ProbePort("admin", 0)))),
        ({"grpc": {"port": 9}}, Probe(GRPCAction(9, ""))),
        ({"grpc": {"port": 9, "service": "s"}, "exec": None}, Probe(GRPCAction(9, "s"))),
    ],
)  # fmt: skip
def test_a_readiness_probe(manifest_probe: dict[str, Any], probe: Probe) -> None:
    result = one(probed(**manifest_probe))
    assert result.problems == []
    assert result.state.pods[0].probes == (("c", probe),)


def test_a_pod_without_readiness_probes() -> None:
    found = pod(spec={"containers": [{"name": "c", "readinessProbe": None, "livenessProbe": LS}]})
    assert found.probes == ()


# --- invalid objects ---

PORT = {"port": 80}
LABEL = (
    "is not a DNS label: at most 63 lower-case letters, digits and -, with a letter or digit first and last"
)
MANY_PORTS = [{"name": f"p{port}", "port": port} for port in range(1, 202)]
MANY_RANGES = [f"10.{number}.0.0/16" for number in range(50)]
NOT_A_PORT_NAME = "is neither a port number nor a valid port name"
BAD_SERVICES: list[tuple[dict[str, Any], str, str]] = [
    ({"ports": None}, "spec.ports", "is missing"),
    ({"ports": []}, "spec.ports", "is missing"),
    ({"ports": {}}, "spec.ports", "expected a list, got an object"),
    ({"ports": [{}]}, "spec.ports[0].port", "is missing"),
    ({"ports": [None]}, "spec.ports[0]", "expected an object, got null"),
    ({"ports": [{"port": "80"}]}, "spec.ports[0].port", 'expected a number, got "80": without quotes'),
    ({"ports": [{"port": "http"}]}, "spec.ports[0].port", 'expected a number, got "http"'),
    ({"ports": [{"port": "{{ .port }}"}]}, "spec.ports[0].port", 'expected a number, got "{{ .port }}": a template: render it first'),
    ({"ports": [{"port": "${PORT}"}]}, "spec.ports[0].port", 'expected a number, got "${PORT}": a template: render it first'),
    ({"ports": [{"port": "9" * 99}]}, "spec.ports[0].port", f'expected a number, got "{"9" * 59}...: without quotes'),
    ({"ports": [{"port": [80]}]}, "spec.ports[0].port", "expected a number, got a list"),
    ({"ports": [{"port": 80.5}]}, "spec.ports[0].port", "expected a number, got 80.5: a whole number"),
    ({"ports": [{"port": True}]}, "spec.ports[0].port", "expected a number, got true"),
    ({"ports": [{"port": 0}]}, "spec.ports[0].port", "0 is not a port (1-65535)"),
    ({"ports": [{"port": 65536}]}, "spec.ports[0].port", "65536 is not a port (1-65535)"),
    ({"ports": [{"port": 2**70}]}, "spec.ports[0].port", f"{2**70} is not a port (1-65535)"),
    ({"ports": [{"port": -(2**70)}]}, "spec.ports[0].port", f"{-(2**70)} is not a port (1-65535)"),
    ({"ports": [{**PORT, "targetPort": -1}]}, "spec.ports[0].targetPort", "-1 is not a port (1-65535)"),
    ({"ports": [{**PORT, "targetPort": 1.5}]}, "spec.ports[0].targetPort", "expected a number or a string, got 1.5: a whole number"),
    ({"healthCheckNodePort": 65536}, "spec.healthCheckNodePort", "65536 is not a port (1-65535)"),
    ({"healthCheckNodePort": -1}, "spec.healthCheckNodePort", "-1 is not a port (1-65535)"),
    ({"healthCheckNodePort": "80"}, "spec.healthCheckNodePort", 'expected a number, got "80": without quotes'),
    ({"loadBalancerIP": 1}, "spec.loadBalancerIP", "expected a string, got 1: in quotes"),
    ({"ports": [{**PORT, "nodePort": 70000}]}, "spec.ports[0].nodePort", "70000 is not a port (1-65535)"),
    ({"ports": [{**PORT, "protocol": "tcp"}]}, "spec.ports[0].protocol", "'tcp' is not one of TCP, UDP, SCTP"),
    ({"ports": [PORT, {"port": 81}]}, "spec.ports[0].name", "is required for each port of a Service with several ports"),
    ({"ports": [{"name": "a", **PORT}, {"name": "a", "port": 81}]}, "spec.ports[1].name", "'a' is a duplicate"),
    ({"ports": [{"name": "a", **PORT}, {"name": "b", **PORT}]}, "spec.ports[1].port", "80/tcp is a duplicate"),
    ({"type": "Loadbalancer"}, "spec.type", "'Loadbalancer' is not one of ClusterIP, NodePort, LoadBalancer, ExternalName"),
    ({"type": 1}, "spec.type", "expected a string, got 1: in quotes"),
    ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIP", "None is not allowed for type NodePort"),
    ({"clusterIP": "10.96.0.300"}, "spec.clusterIP", "'10.96.0.300' does not appear to be an IPv4 or IPv6 address"),
    ({"clusterIP": "fe80::1%eth0"}, "spec.clusterIP", "'fe80::1%eth0' is not a plain IPv4 or IPv6 address"),
    ({"clusterIPs": ["10.96.0.1", "x"]}, "spec.clusterIPs[1]", "'x' does not appear to be an IPv4 or IPv6 address"),
    ({"clusterIPs": ["10.96.0.1", "10.96.0.2"]}, "spec.clusterIPs", "contains two addresses of the same family"),
    ({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.2"]}, "spec.clusterIPs[0]", "10.96.0.2 differs from spec.clusterIP 10.96.0.1"),
    ({"clusterIP": "fd00::1", "ipFamilies": ["IPv4"]}, "spec.clusterIP", "fd00::1 is not IPv4, as spec.ipFamilies[0] requires"),
    ({"ipFamilies": ["IPv5"]}, "spec.ipFamilies[0]", "'IPv5' is not one of IPv4, IPv6"),
    ({"ipFamilies": ["IPv4", "IPv4"]}, "spec.ipFamilies[1]", "'IPv4' is a duplicate"),
    ({"ipFamilyPolicy": "DualStack"}, "spec.ipFamilyPolicy", "'DualStack' is not one of SingleStack, PreferDualStack, RequireDualStack"),
    ({"sessionAffinity": "Cookie"}, "spec.sessionAffinity", "'Cookie' is not one of ClientIP, None"),
    (
        {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        "86401 is not in the range 1-86400",
    ),
    ({"selector": {"app": 1}}, "spec.selector[app]", "expected a string, got 1: in quotes"),
    ({"selector": {"app": ["web"]}}, "spec.selector[app]", "expected a string, got a list"),
    ({"selector": {"matchLabels": {"app": "web"}}}, "spec.selector", "a Service's selector is a map of labels and cannot contain matchLabels"),
    ({"selector": {"matchExpressions": []}}, "spec.selector", "a Service's selector is a map of labels and cannot contain matchExpressions"),
    ({"selector": ["app"]}, "spec.selector", "expected an object, got a list"),
    ({"internalTrafficPolicy": "local"}, "spec.internalTrafficPolicy", "'local' is not one of Cluster, Local"),
    ({"externalTrafficPolicy": "Global"}, "spec.externalTrafficPolicy", "'Global' is not one of Cluster, Local"),
    ({"externalIPs": "198.51.100.1"}, "spec.externalIPs", 'expected a list, got "198.51.100.1"'),
    ({"ports": MANY_PORTS, "externalIPs": ["198.51.100.1"] * 100}, "spec.ports", "201 ports x 100 addresses are 20100 frontends: at most 20000"),
    ({"ports": MANY_PORTS, "type": "LoadBalancer", "loadBalancerSourceRanges": MANY_RANGES}, "spec.loadBalancerSourceRanges", "201 ports x 1 load-balancer addresses x 50 ranges are 10050: at most 10000"),
    ({"clusterIP": "255.255.255.255"}, "spec.clusterIP", "255.255.255.255 is not allowed: broadcast address"),
    ({"clusterIP": "224.0.0.1"}, "spec.clusterIP", "224.0.0.1 is not allowed: multicast address"),
    ({"clusterIPs": ["10.96.0.1", "fe80::1"]}, "spec.clusterIPs[1]", "fe80::1 is not allowed: link-local address"),
    ({"loadBalancerSourceRanges": ["10.0.0.0/8", "10.0.0.0/33"]}, "spec.loadBalancerSourceRanges[1]", "'10.0.0.0/33' does not appear to be an IPv4 or IPv6 network"),
    ({"ports": [{**PORT, "targetPort": "Http"}]}, "spec.ports[0].targetPort", f"'Http' {NOT_A_PORT_NAME}"),
    ({"ports": [{**PORT, "targetPort": "8080"}]}, "spec.ports[0].targetPort", f"'8080' {NOT_A_PORT_NAME}"),
    ({"ports": [{**PORT, "name": "a b"}]}, "spec.ports[0].name", f"'a b' {LABEL}"),
    ({"ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30001}]}, "spec.ports[1].nodePort", "30001 is a duplicate"),
    ({"publishNotReadyAddresses": "yes"}, "spec.publishNotReadyAddresses", 'expected true or false, got "yes"'),
    ({"publishNotReadyAddresses": "true"}, "spec.publishNotReadyAddresses", 'expected true or false, got "true": without quotes'),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "message"), BAD_SERVICES)
def test_an_invalid_service(spec: dict[str, Any], field: str, message: str) -> None:
    result = one(service(**spec))
    assert result.problems == [("f", "Service default/web", field, message)]
    assert result.state.services == {}
    assert result.unreadable.covers(name("web"))
    assert not result.unreadable.covers(name("other"))


def subset(**rest: Any) -> dict[str, Any]:
    return manifest("Endpoints", subsets=[{"ports": [{"port": 80}], **rest}])


def pod_port(**rest: Any) -> dict[str, Any]:
    return manifest("Pod", spec={"containers": [{"ports": [{"name": "x", **rest}]}]})


PROBE = "spec.containers[0].readinessProbe"
ONE_ACTION = "must have exactly one of exec, httpGet, tcpSocket, grpc"
BAD_OBJECTS: list[tuple[dict[str, Any], str, str]] = [
    (slice_(addressType="IPX"), "addressType", "'IPX' is not one of IPv4, IPv6, FQDN"),
    (slice_(addressType=None), "addressType", "expected a string, got null"),
    (slice_(ports=[{"port": 1, "protocol": "ICMP"}]), "ports[0].protocol", "'ICMP' is not one of TCP, UDP, SCTP"),
    (slice_(endpoints=[{}]), "endpoints[0].addresses", "is empty"),
    (slice_(endpoints=[{"addresses": []}]), "endpoints[0].addresses", "is empty"),
    (slice_(endpoints=[{"addresses": ["fd00::1"]}]), "endpoints[0].addresses[0]", "fd00::1 is not of the slice's addressType"),
    (slice_(endpoints=[{"addresses": ["127.0.0.1"]}]), "endpoints[0].addresses[0]", "127.0.0.1 is not allowed: loopback address"),
    (slice_(endpoints=[{"addresses": ["169.254.1.1"]}]), "endpoints[0].addresses[0]", "169.254.1.1 is not allowed: link-local address"),
    (slice_(endpoints=[{"addresses": ["255.255.255.255"]}]), "endpoints[0].addresses[0]", "255.255.255.255 is not allowed: broadcast address"),
    (slice_(endpoints=[{"addresses": ["240.0.0.1"]}]), "endpoints[0].addresses[0]", "240.0.0.1 is not allowed: reserved address"),
    (slice_(endpoints=[{"addresses": ["0.1.2.3"]}]), "endpoints[0].addresses[0]", "0.1.2.3 is not allowed: reserved address"),
    (subset(addresses=[{"ip": "250.1.2.3"}]), "subsets[0].addresses[0].ip", "250.1.2.3 is not allowed: reserved address"),
    (manifest("Pod", status={"podIP": "255.255.255.255"}), "status.podIP", "255.255.255.255 is not allowed: broadcast address"),
    (slice_(endpoints=[{"addresses": ["0.0.0.0"]}]), "endpoints[0].addresses[0]", "0.0.0.0 is not allowed: unspecified address"),
    (slice_(endpoints=[{"addresses": ["10.0.0.1"], "conditions": {"ready": "True"}}]), "endpoints[0].conditions.ready", 'expected true or false, got "True"'),
    (subset(addresses=[{}]), "subsets[0].addresses[0].ip", "is missing"),
    (subset(addresses=[{"ip": "x.org"}]), "subsets[0].addresses[0].ip", "'x.org' does not appear to be an IPv4 or IPv6 address"),
    (subset(notReadyAddresses=[{"ip": "::1"}]), "subsets[0].notReadyAddresses[0].ip", "::1 is not allowed: loopback address"),
    (manifest("Pod", status={"podIP": "1"}), "status.podIP", "'1' does not appear to be an IPv4 or IPv6 address"),
    (manifest("Pod", status={"podIPs": [{"ip": "ff02::1"}]}), "status.podIPs[0].ip", "ff02::1 is not allowed: multicast address"),
    (pod_port(containerPort=0), "spec.containers[0].ports[0].containerPort", "0 is not a port (1-65535)"),
    (pod_port(containerPort=1, protocol="x"), "spec.containers[0].ports[0].protocol", "'x' is not one of TCP, UDP, SCTP"),
    (manifest("Pod", spec={"containers": [{"name": "-c"}]}), "spec.containers[0].name", f"'-c' {LABEL}"),
    (manifest("Pod", spec={"containers": [{}, {"name": "c" * 64}]}), "spec.containers[1].name", f"'{'c' * 64}' {LABEL}"),
    (manifest("Pod", status={"containerStatuses": [{"restartCount": 2**70}]}), "status.containerStatuses[0].restartCount", "expected int <= 2147483647"),
    (manifest("Pod", spec={"containers": [{"name": "c"}, {"name": "c"}]}), "spec.containers[1].name", "'c' is a duplicate"),
    (manifest("Pod", spec={"containers": [{}, {"readinessProbe": LS}]}), "spec.containers[1].name", "is missing"),
    (manifest("Pod", spec={"initContainers": [{}, {"name": "c", "readinessProbe": {}, "restartPolicy": "Always"}]}), "spec.initContainers[1].readinessProbe", ONE_ACTION),
    (probed(), f"{PROBE}", ONE_ACTION),
    (probed(exec={"command": ["x"]}, tcpSocket={"port": 1}), f"{PROBE}", ONE_ACTION),
    (probed(exec={"command": ["x"]}, periodSeconds=-1), f"{PROBE}.periodSeconds", "-1 is not a number from 0 to 2147483647"),
    (probed(exec={"command": ["x"]}, timeoutSeconds=2**31), f"{PROBE}.timeoutSeconds", "2147483648 is not a number from 0 to 2147483647"),
    (probed(exec={"command": ["x"]}, initialDelaySeconds="1s"), f"{PROBE}.initialDelaySeconds", 'expected a number, got "1s"'),
    (probed(exec={"command": ["x"]}, successThreshold=-1), f"{PROBE}.successThreshold", "-1 is not a number from 0 to 2147483647"),
    (probed(exec={"command": ["x"]}, failureThreshold=-1), f"{PROBE}.failureThreshold", "-1 is not a number from 0 to 2147483647"),
    (probed(exec={}), f"{PROBE}.exec.command", "is missing"),
    (probed(exec={"command": "ls"}), f"{PROBE}.exec.command", 'expected a list, got "ls"'),
    (probed(exec={"command": ["ls", "a\0b"]}), f"{PROBE}.exec.command[1]", "contains a null byte"),
    (probed(httpGet={}), f"{PROBE}.httpGet.port", "is missing"),
    (probed(httpGet={"port": 0}), f"{PROBE}.httpGet.port", "0 is not a port (1-65535)"),
    (probed(httpGet={"port": ""}), f"{PROBE}.httpGet.port", "is empty"),
    (probed(httpGet={"port": 1, "scheme": "http"}), f"{PROBE}.httpGet.scheme", "'http' is not one of HTTP, HTTPS"),
    (probed(httpGet={"port": 1, "httpHeaders": [{"name": "X:"}]}), f"{PROBE}.httpGet.httpHeaders[0].name", "'X:' is not an HTTP header name"),
    (probed(httpGet={"port": 1, "httpHeaders": [{"name": "X", "value": "a\nY: b"}]}), f"{PROBE}.httpGet.httpHeaders[0].value", "contains control characters"),
    (probed(tcpSocket={"port": 65536}), f"{PROBE}.tcpSocket.port", "65536 is not a port (1-65535)"),
    (probed(tcpSocket={"port": "70000"}), f"{PROBE}.tcpSocket.port", "70000 is not a port (1-65535)"),
    (probed(grpc={"port": 0}), f"{PROBE}.grpc.port", "0 is not a port (1-65535)"),
    (slice_(endpoints=[{"addresses": ["10.0.0.1"], "hints": {"forZones": [{}]}}]), "endpoints[0].hints.forZones[0].name", "is missing"),
    (slice_(endpoints=[{"addresses": ["10.0.0.1"], "targetRef": "web-1"}]), "endpoints[0].targetRef", 'expected an object, got "web-1"'),
    (manifest("Node", spec={"podCIDR": "10.1.0.0"}, metadata={"labels": 1}), "metadata.labels", "expected an object, got 1"),
    (manifest("Node", spec={"podCIDR": "pods"}), "spec.podCIDR", "'pods' does not appear to be an IPv4 or IPv6 network"),
    (labelled(annotations={"b": "1", "example.com/a": 1}), "metadata.annotations[example.com/a]", "expected a string, got 1: in quotes"),
    (labelled(labels={"a": True}), "metadata.labels[a]", "expected a string, got true: in quotes"),
    (manifest("Service"), "spec", "is missing"),
    (manifest("Service", spec=None), "spec", "expected an object, got null"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "field", "message"), BAD_OBJECTS)
def test_an_invalid_object(content: dict[str, Any], field: str, message: str) -> None:
    result = one(content)
    subject = f"{content['kind']} default/{content['metadata']['name']}"
    assert result.problems == [("f", subject, field, message)]


FIRST = "document 1 (line 1)"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], (FIRST, "", "expected an object, got a list")),
        ("text", (FIRST, "", 'expected an object, got "text"')),
        (80, (FIRST, "", "expected an object, got 80")),
        ({}, (FIRST, "kind", "is missing")),
        ({"metadata": {"name": "a"}}, (f"{FIRST}: object default/a", "kind", "is missing")),
        ({"kind": 3}, (FIRST, "kind", "expected a string, got 3: in quotes")),
        ({"kind": "Service", "apiVersion": 1}, (FIRST, "apiVersion", "expected a string, got 1: in quotes")),
        ({"kind": "Service", "metadata": {"name": "a"}}, (f"{FIRST}: Service default/a", "apiVersion", "is missing")),
        ({"apiVersion": "v1", "kind": "Service"}, ("Service (no name)", "metadata", "is missing")),
        (manifest("Service", None, spec={"ports": [PORT]}), ("Service (no name)", "metadata.name", "is missing")),
        (manifest("Service", 7), ("Service default/7", "metadata.name", "expected a string, got 7: in quotes")),  # type: ignore[arg-type]
        ({"apiVersion": "v1", "kind": "List", "items": {}}, (FIRST, "items", "expected a list, got an object")),
        ({"apiVersion": "v1", "kind": "List", "items": [None]}, (f"{FIRST}, items[0]", "", "expected an object, got null")),
        ({"apiVersion": "v1", "kind": "List"}, (FIRST, "items", "is missing")),
        ({"apiVersion": "v1", "kind": "ServiceList", "item": []}, (FIRST, "items", "is missing")),
    ],
)  # fmt: skip
def test_a_document_without_an_object(content: Any, problem: tuple[str, str, str]) -> None:
    assert one(content).problems == [("f", *problem)]


@pytest.mark.parametrize("kind", ["List", "ServiceList"])
def test_an_invalid_item_does_not_affect_the_others(kind: str) -> None:
    items = [service("a"), service("b", ports=[{"port": "x"}]), None, service("c")]
    result = one({"apiVersion": "v1", "kind": kind, "items": items})
    assert [own.name for own in result.state.services] == ["a", "c"]
    assert [problem.object for problem in result.problems] == ["Service default/b", f"{FIRST}, items[2]"]


@pytest.mark.parametrize(
    "content",
    [
        {"apiVersion": "v1", "kind": "ServiceList", "items": [{"metadata": {"name": "a"}, "spec": {"ports": [PORT]}}]},
        {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "List", "items": [service("a")]}]},
        {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ServiceList", "items": [service("a")]}]},
    ],
)  # fmt: skip
def test_typed_and_nested_lists(content: dict[str, Any]) -> None:
    result = one(content)
    assert (list(result.state.services), result.problems) == ([name("a")], [])


@pytest.mark.parametrize(
    ("change", "has_slice"),
    [
        ({}, True),
        ({"endpoints": [{"addresses": ["10.0.0.1"], "zone": "a"}]}, True),
        ({"zone": "a"}, True),
        ({"apiVersion": "discovery.k8s.io/v2"}, False),
        ({"apiVersion": None}, False),
        ({"kind": "Endpoints"}, False),
        ({"kind": "Other"}, False),
        ({"addressType": 4}, False),
    ],
)
def test_an_item_of_a_list_is_decoded_as_what_it_is(change: dict[str, Any], has_slice: bool) -> None:
    result = one({"apiVersion": "v1", "kind": "List", "items": [slice_(**change), service()]})
    assert (name("web") in result.state.slices) == has_slice
    assert name("web") in result.state.services


def a_list(*items: Any) -> Document:
    """A file with a List, as it is read."""
    content = {"apiVersion": "v1", "kind": "List", "items": items}
    (document,) = parse("f", msgspec.json.encode(content))
    assert isinstance(document, Document)
    return document


def test_equal_items_of_a_list_are_decoded_once() -> None:
    decoder = Decoder()
    before = decoder.decode([a_list(service("a"), service("b"), slice_("c", "b"))]).state
    after = decoder.decode([a_list(service("a"), service("b", type="NodePort"), slice_("c", "b"))]).state
    assert after.services[name("a")] is before.services[name("a")]
    assert after.services[name("b")].type == "NodePort"
    assert after.slices[name("b")][0] is before.slices[name("b")][0]


def test_a_list_without_items_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, empty, decoded = Decoder(), a_list(), list[Document]()

    def leaves_of(document: Document) -> Leaves:
        decoded.append(document)
        return ()

    decoder.decode([empty])
    monkeypatch.setattr("kproxy.decode.leaves_of", leaves_of)
    decoder.decode([empty, second := as_json(service(), "g")])
    assert decoded == [second]


@pytest.mark.parametrize("items", [None, []])
def test_an_empty_list(items: list[Any] | None) -> None:
    result = one({"apiVersion": "v1", "kind": "List", "items": items})
    assert (result.problems, result.counts.total()) == ([], 0)


def test_other_kinds_are_counted_and_ignored() -> None:
    others = [
        ("batch/v1", "Job"),
        ("gateway.networking.k8s.io/v1", "GRPCRoute"),
        ("serving.knative.dev/v1", "Service"),
        ("example.com/v1", "AllowList"),
    ]
    result = decode(Document("f", {"apiVersion": version, "kind": kind}) for version, kind in others)
    ignored = {"Job": 1, "GRPCRoute": 1, "Service (serving.knative.dev/v1)": 1, "AllowList": 1}
    assert (result.problems, result.warnings, result.ignored) == ([], [], ignored)
    assert not result.unreadable.covers(name("web"))


def test_of_two_objects_with_one_name_the_first_is_used() -> None:
    first, second = service("web", clusterIP="10.96.0.1"), service("web", clusterIP="10.96.0.2")
    result = decode([Document("a.yaml", first), Document("b.yaml", second)])
    assert result.state.services[name("web")].cluster_ips == (parse_address("10.96.0.1"),)
    message = "is a duplicate; the object in a.yaml is used"
    assert result.problems == [("b.yaml", "Service default/web", "metadata.name", message)]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("status", [{}, {"phase": "Succeeded"}])
def test_of_two_pods_with_one_name_the_one_with_an_address_is_used(
    order: int, status: dict[str, Any]
) -> None:
    """A Pod as it was written, or after it ended, and as the program that runs it describes it."""
    written = manifest("Pod", "p", metadata={"labels": {"app": "web"}}, status=status)
    running = {**written, "status": {"podIP": "10.244.1.2"}}
    result = decode([Document("a.yaml", written), Document("b.yaml", running)][::order])
    assert [pod.addresses for pod in result.state.pods] == [(parse_address("10.244.1.2"),)]
    assert result.problems == []
    for two in ([written, written], [running, running]):
        again = decode(Document("f", content) for content in two)
        assert [problem.message for problem in again.problems] == ["is a duplicate; the object in f is used"]


def test_the_same_name_in_another_namespace_or_kind_is_another_object() -> None:
    contents = [
        service("web"),
        manifest("Service", "web", metadata={"namespace": "other"}, spec={"ports": [PORT]}),
    ]
    result = decode(Document("f", content) for content in [*contents, manifest("Pod", "web"), slice_("web")])
    assert (len(result.state.services), result.problems) == (2, [])


# Which Services are protected if an object cannot be decoded: (object, protected, not protected).
UNREADABLE: list[tuple[Any, list[str], list[str]]] = [
    (service("a", ports=[]), ["a"], ["b", "other/a"]),
    (manifest("Service", "a", metadata={"namespace": "other"}), ["other/a"], ["a", "other/b"]),
    (manifest("Service", None), ["a", "b"], ["other/a"]),
    (manifest("Endpoints", "a", subsets=1), ["a"], ["b"]),
    (slice_("a-xyz", of="a", ports=1), ["a"], ["a-xyz", "b"]),
    (slice_("x", metadata={"labels": None}, ports=1), ["a", "b"], ["other/a"]),
    (manifest("Pod", "p", spec=1), ["a", "b"], ["other/a"]),
    (manifest("Pod", "p", metadata={"namespace": "other"}, spec=1), ["other/a"], ["a"]),
    (manifest("Service", "a", metadata={"namespace": 3}), ["a", "other/a"], []),
    # a name that no Service can have may be a mistake in any name
    (service("A"), ["a", "b"], ["other/a"]),
    (service("a.b"), ["a", "b"], ["other/a"]),
    (manifest("Endpoints", "A_1"), ["a", "b"], ["other/a"]),
    (slice_("x", of="A", ports=1), ["a", "b"], ["other/a"]),
    (manifest("Service", "a", metadata={"namespace": "Other"}), ["a", "other/a"], []),
    ({"kind": "Service"}, ["a"], ["other/a"]),
    ({"metadata": {"name": "a"}}, ["a", "other/b"], []),
    (3, ["a", "other/b"], []),
    (service("a"), [], ["a"]),
]


@pytest.mark.parametrize(("content", "covered", "others"), UNREADABLE)
def test_which_services_an_unreadable_object_covers(
    content: Any, covered: list[str], others: list[str]
) -> None:
    unreadable = one(content).unreadable
    assert [unreadable.covers(name(text)) for text in covered] == [True] * len(covered)
    assert [unreadable.covers(name(text)) for text in others] == [False] * len(others)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30001}]}, id="a duplicate node port"),
        pytest.param({"ports": [{"port": 80, "targetPort": "8080"}]}, id="a target port name of digits only"),
    ],
)  # fmt: skip
def test_objects_that_the_api_server_refuses(spec: dict[str, Any]) -> None:
    assert one(service(type="NodePort", **spec)).problems


@pytest.mark.parametrize(
    "own_name", ['a" : drop }', "a\0b", "a/b", "a:b", "a\nb", "Web", "-a", "a-", "x" * 254]
)
@pytest.mark.parametrize("kind", ["Service", "Endpoints", "EndpointSlice", "Pod", "Node"])
def test_an_invalid_name(kind: str, own_name: str) -> None:
    """Names become comments of elements, also in nft scripts, so they must not need quotes."""
    content = {"Service": service(own_name), "EndpointSlice": slice_(own_name)}.get(
        kind, manifest(kind, own_name)
    )
    ((_, _, field, message),) = one(content).problems
    assert field == "metadata.name"
    rule = "at most 253 lower-case letters, digits, - and ., with a letter or digit first and last"
    assert message == f"{own_name!r} is not a DNS name: {rule}"


@pytest.mark.parametrize(
    ("namespace", "good"), [("a-1", True), ("x" * 64, False), ("A", False), ("a/b", False)]
)
def test_a_namespace(namespace: str, good: bool) -> None:
    problems = one(manifest("Pod", "a", metadata={"namespace": namespace})).problems
    assert [problem.field for problem in problems] == ([] if good else ["metadata.namespace"])


@pytest.mark.parametrize(
    ("own_name", "good"), [("web-1", True), ("1", True), ("x" * 63, True), ("a.b", False), ("x" * 64, False)]
)
def test_a_services_name_is_a_dns_label(own_name: str, good: bool) -> None:
    message = f"{own_name!r} {LABEL}"
    assert [p.message for p in one(service(own_name)).problems] == ([] if good else [message])
    assert one(manifest("Pod", own_name)).problems == []


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("10.0.200.255", True),
        ("223.0.0.0", True),
        *(
            (text, False)
            for text in (
                "10.0.0.256",
                "10.0.0.01",
                "10.0.0",
                "10.0.0.0.0",
                "10.0.0.",
                " 10.0.0.1",
                "+1.0.0.1",
                "\u0661.0.0.1",
                "fd00::1",
                "",
            )
        ),
        *(
            (text, False)
            for text in ("0.0.0.1", "127.0.0.1", "169.254.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255")
        ),
    ],
)
def test_a_plain_address_needs_no_closer_look(text: str, plain: bool) -> None:
    assert plain_address(text) == (parse_address(text) if plain else None)
