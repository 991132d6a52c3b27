"""Manifests that are almost right: what is said of them, and what is used nevertheless."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import ast
import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kproxy.decode import Decoded, Document, decode, wire
from kproxy.decode.gatewayschema import GATEWAY_TYPES
from kproxy.decode.kinds import API_VERSIONS
from kproxy.decode.schema import TYPES, fields
from kproxy.decode.strict import strictly
from kproxy.model import format_address
from tests.unit.make import as_json, manifest, name, service
from tests.unit.test_decode import labelled, one, pod_port, probed, slice_, subset

# --- a kind or an apiVersion that is almost right ---

NOT_A_KIND = '"{}" is not a kind that kproxy knows. Did you mean {}?'
NOT_A_VERSION = '"{}" is not an apiVersion of {} that kproxy knows. Did you mean {}?'
SERVICE, SLICE, INGRESS = "v1", "discovery.k8s.io/v1", "networking.k8s.io/v1"

WRONG_KINDS = [
    *(("v1", kind, "Service") for kind in ("Servcie", "service", "Services", "SERVICE", "Serivce", "Srvice", "Service ", "svc")),
    *(("v1", kind, "Endpoints") for kind in ("Endpoint", "endpoints", "EndPoints", "Endponts", "ep")),
    *(("v1", kind, "Pod") for kind in ("pod", "Pods", "Podd", "po")),
    *(("v1", kind, "Node") for kind in ("node", "Nodes", "Nod")),
    *((SLICE, kind, "EndpointSlice") for kind in ("EndpointSlices", "Endpointslice", "Endpoint-Slice", "EnpointSlice", "EndpointsSlice")),
    *((INGRESS, kind, "Ingress") for kind in ("ingress", "Ingresses", "Ingres", "ing")),
    *(("v1", kind, "List") for kind in ("list", "Lists", "Lst")),
    *(("v1", kind, "ServiceList") for kind in ("servicelist", "Servicelist", "ServiceLists")),
    ("apps/v1", "Servcie", "Service"),
    ("V1", "service", "Service"),
]  # fmt: skip
WRONG_VERSIONS = [
    *((version, "Service", "v1") for version in ("apps/v1", "V1", "v2", "v1beta1", "v1 ", "/v1", "core/v1", "1", "app/v1", "extensions/v1beta1", "service.k8s.io/v1")),
    *((version, "EndpointSlice", SLICE) for version in ("discovery.k8s.io/v1beta1", "v1", "discovery/v1", "discovery.k8s.oi/v1", "Discovery.k8s.io/v1", "discovery.kubernetes.io/v1", "discovery.k8s.io")),
    *((version, "Ingress", INGRESS) for version in ("networking.k8s.io/v1beta2", "v1", "apps/v1", "networking.k8s.o/v1", "networking.v1.k8s.io/v1")),
    ("extensions/v1", "Ingress", "extensions/v1beta1"),
    ("apps/v1", "Pod", "v1"),
    ("v1beta1", "Node", "v1"),
]  # fmt: skip


@pytest.mark.parametrize(("version", "kind", "meant"), WRONG_KINDS)
def test_a_kind_that_is_almost_right(version: str, kind: str, meant: str) -> None:
    ((_, place, field, message),) = one(manifest(kind, apiVersion=version)).problems
    assert (place, field) == (f"document 1 (line 1): {kind} default/web", "kind")
    assert message == NOT_A_KIND.format(kind, meant)


@pytest.mark.parametrize(("version", "kind", "meant"), WRONG_VERSIONS)
def test_an_api_version_that_is_almost_right(version: str, kind: str, meant: str) -> None:
    ((_, place, field, message),) = one(manifest(kind, apiVersion=version)).problems
    assert (place, field) == (f"document 1 (line 1): {kind} default/web", "apiVersion")
    assert message == NOT_A_VERSION.format(version, kind, meant)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("serving.knative.dev/v1", "Service"),
        ("serving.knative.dev/v1", "Services"),
        ("networking.internal.knative.dev/v1alpha1", "Ingress"),
        ("config.openshift.io/v1", "Ingress"),
        ("longhorn.io/v1beta2", "Node"),
        ("cilium.io/v2", "CiliumEndpointSlice"),
        ("traefik.io/v1alpha1", "IngressRoute"),
        ("networking.istio.io/v1", "ServiceEntry"),
        ("monitoring.coreos.com/v1", "ServiceMonitor"),
        ("crd.antrea.io/v1", "Egress"),
        (INGRESS, "ServiceCIDR"),
        (INGRESS, "NetworkPolicy"),
        ("coordination.k8s.io/v1", "Lease"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("metrics.k8s.io/v1beta1", "PodMetrics"),
        ("node.k8s.io/v1", "RuntimeClass"),
        ("batch/v1", "Job"),
        ("apps/v1", "ControllerRevision"),
        ("policy/v1", "PodDisruptionBudget"),
        *(
            ("v1", kind)
            for kind in ("ServiceAccount", "PodTemplate", "ConfigMap", "Event", "Status", "Binding", "Config")
        ),
    ],
)  # fmt: skip
def test_other_kinds_are_ignored(version: str, kind: str) -> None:
    result = one(manifest(kind, apiVersion=version))
    key = f"{kind} ({version})" if kind in API_VERSIONS else kind
    assert (result.problems, result.warnings, result.ignored) == ([], [], {key: 1})
    assert not result.unreadable


@pytest.mark.parametrize(
    ("content", "covered", "others"),
    [
        (manifest("Servcie"), ["web"], ["b", "other/web"]),
        (manifest("service", metadata={"namespace": "other"}), ["other/web"], ["web"]),
        (manifest("Service", apiVersion="apps/v1"), ["web"], ["b"]),
        (manifest("Endpoint"), ["web"], ["b"]),
        (slice_(apiVersion="discovery.k8s.io/v1beta1"), ["web"], ["web-1"]),
        (manifest("pod", "a"), ["web", "b"], ["other/web"]),
        (manifest("ingress", apiVersion=INGRESS), [], ["web"]),
        (manifest("node"), [], ["web"]),
        ({"apiVersion": "v1", "kind": "list", "items": [service()]}, ["web", "other/b"], []),
        ({"apiVersion": "v1", "kind": "List", "item": [service()]}, ["web", "other/b"], []),
        (manifest("Node", spec={"podCIDR": "x"}), [], ["web"]),
        (manifest("Node", spec=1), [], ["web"]),
        (subset(addresses=[{"ip": "x"}]), ["web"], ["b"]),
        (slice_(endpoints=[{"addresses": ["x"]}]), ["web"], ["b"]),
        (manifest("Pod", "a", status={"podIP": "x"}), ["web", "b"], ["other/web"]),
        (service(externalIPs=["x"]), ["web"], ["b"]),
    ],
)  # fmt: skip
def test_what_an_object_that_is_almost_right_protects(
    content: Any, covered: list[str], others: list[str]
) -> None:
    unreadable = one(content).unreadable
    assert [text for text in (*covered, *others) if unreadable.covers(name(text))] == covered


@pytest.mark.parametrize(
    ("kind", "version", "message", "covered"),
    [
        ("v1", "Service", 'kind: "v1" is not a kind, and apiVersion is "Service": they are exchanged', "web"),
        ("V1", "endpoint", 'kind: "V1" is not a kind, and apiVersion is "endpoint": they are exchanged', "web"),
        ("networking.k8s.io/v1", "Ingress", 'kind: "networking.k8s.io/v1" is not a kind, and apiVersion is "Ingress": they are exchanged', ""),
        ("v1/Service", "v1", "kind: " + NOT_A_KIND.format("v1/Service", "Service"), "web"),
        ("Service.v1", "v1", "kind: " + NOT_A_KIND.format("Service.v1", "Service"), "web"),
        ("endpointslice.discovery.k8s.io", SLICE, "kind: " + NOT_A_KIND.format("endpointslice.discovery.k8s.io", "EndpointSlice"), "b"),
    ],
)  # fmt: skip
def test_a_kind_with_its_version(kind: str, version: str, message: str, covered: str) -> None:
    found = one(manifest(kind, apiVersion=version, metadata={"labels": {"kubernetes.io/service-name": "b"}}))
    (problem,) = found.problems
    assert f"{problem.field}: {problem.message}" == message
    assert {own for own in ("web", "b") if found.unreadable.covers(name(own))} == {covered} - {""}


def test_a_version_as_kind_of_another_project_is_ignored() -> None:
    assert one(manifest("v2", apiVersion="example.com/Thing")).problems == []


def renamed(content: dict[str, Any], key: str, wrong: str, *path: str | int) -> dict[str, Any]:
    """The object with another name for a key of the object at `path`."""
    content = copy.deepcopy(content)
    parent: Any = content
    for step in path:
        parent = parent[step]
    parent[wrong] = parent.pop(key)
    return content


INGRESS_RULE = manifest(
    "Ingress",
    apiVersion=INGRESS,
    spec={
        "rules": [
            {
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Prefix",
                            "backend": {"service": {"name": "a", "port": {"number": 1}}},
                        }
                    ]
                }
            }
        ]
    },
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (renamed(service(), "kind", "Kind"), 'kind: is missing, but there is "Kind"'),
        (renamed(service(), "apiVersion", "apiversion"), 'apiVersion: is missing, but there is "apiversion"'),
        (renamed(service(), "metadata", "metdata"), 'metadata: is missing, but there is "metdata"'),
        (renamed(service(), "name", "Name", "metadata"), 'metadata.name: is missing, but there is "Name"'),
        (renamed(service(), "spec", "Spec"), 'spec: is missing, but there is "Spec"'),
        (renamed(service(), "ports", "prots", "spec"), 'spec.ports: is missing, but there is "prots"'),
        (renamed(service(), "port", "Port", "spec", "ports", 0), 'spec.ports[0].port: is missing, but there is "Port"'),
        (service(ports=[{"nodePort": 30000}]), "spec.ports[0].port: is missing"),
        (service(ports=[{"x" * 1000: 1}]), "spec.ports[0].port: is missing"),
        (renamed(slice_(), "addressType", "addresstype"), 'addressType: is missing, but there is "addresstype"'),
        (subset(addresses=[{"IP": "10.0.0.1"}]), 'subsets[0].addresses[0].ip: is missing, but there is "IP"'),
        (renamed(INGRESS_RULE, "pathType", "pathtype", "spec", "rules", 0, "http", "paths", 0), 'spec.rules[0].http.paths[0].pathType: is missing, but there is "pathtype"'),
        (manifest("Service", metadata={"namespace": 5}), "metadata.namespace: expected a string, got 5: in quotes"),
    ],
)  # fmt: skip
def test_a_missing_field_and_a_similar_key(content: dict[str, Any], message: str) -> None:
    for document in (Document("f", content), as_json(json.loads(json.dumps(content)), "f")):
        (problem,) = decode([document]).problems
        assert f"{problem.field}: {problem.message}" == message


def test_the_subject_of_an_object_with_a_wrong_namespace() -> None:
    (problem,) = one(manifest("Service", metadata={"namespace": ["a"]})).problems
    assert problem.object == "Service web"


@pytest.mark.parametrize("labels", [None, {}, {"kubernetes.io/service-names": "web"}])
def test_a_slice_of_no_service(labels: dict[str, str] | None) -> None:
    message = "no kubernetes.io/service-name: the slice belongs to no Service"
    (warning,) = one(
        manifest("EndpointSlice", apiVersion=SLICE, addressType="IPv4", metadata={"labels": labels})
    ).warnings
    assert (warning.field, warning.message) == ("metadata.labels", message)


def test_the_place_of_a_document_and_of_an_item() -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": [service("a"), {"metadata": {"name": "b"}}]}
    found = decode([Document("f", items, number=3, line=17)])
    assert [str(problem) for problem in found.problems] == [
        "f: document 3 (line 17), items[1]: object default/b: kind: is missing"
    ]


# --- fields that do not exist ---


def unknown(field: str, meant: str = "") -> tuple[str, str]:
    return field, f"unknown field. Did you mean {meant}?" if meant else "unknown field"


CONTAINER = "spec.containers[0]"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (service(selectr={"app": "web"}), [unknown("spec.selectr", "selector")]),
        (service(selectors={"app": "web"}), [unknown("spec.selectors", "selector")]),
        (service(clusterIp="10.96.0.1"), [unknown("spec.clusterIp", "clusterIP")]),
        (service(publishNotReadyEndpoints=True), [unknown("spec.publishNotReadyEndpoints", "publishNotReadyAddresses")]),
        (service(ports=[{"port": 80, "targetport": 8080}]), [unknown("spec.ports[0].targetport", "targetPort")]),
        (service(ports=[{"port": 80, "name": "a"}, {"port": 81, "name": "b", "nodeport": 1}]), [unknown("spec.ports[1].nodeport", "nodePort")]),
        (service(sessionAffinityConfig={"clientIp": {}}, sessionAffinity="ClientIP"), [unknown("spec.sessionAffinityConfig.clientIp", "clientIP")]),
        (service(nodePort=30080), [unknown("spec.nodePort", "spec.ports.nodePort")]),
        (service(zzz=1), [unknown("spec.zzz")]),
        ({**service(), "type": "NodePort"}, [unknown("type", "spec.type")]),
        ({**service(), "ports": [], "selector": {}}, [unknown("ports", "spec.ports"), unknown("selector", "spec.selector")]),
        ({**service(), "x-anchor": {}}, [unknown("x-anchor")]),
        (manifest("Service", spec={"ports": [{"port": 80}]}, metadata={"lables": {}}), [unknown("metadata.lables", "labels")]),
        (labelled({"loadbalancer": {}}), [unknown("status.loadbalancer", "loadBalancer")]),
        (manifest("Endpoints", subset=[]), [unknown("subset", "subsets")]),
        (subset(address=[]), [unknown("subsets[0].address", "addresses")]),
        (slice_(endpoint=[]), [unknown("endpoint", "endpoints")]),
        (slice_(endpoints=[{"addresses": ["10.0.0.1"], "condition": {}}]), [unknown("endpoints[0].condition", "conditions")]),
        (slice_(ports=[{"port": 80, "protocal": "UDP"}]), [unknown("ports[0].protocal", "protocol")]),
        (manifest("Node", spec={"podCidr": "10.1.0.0/24"}), [unknown("spec.podCidr", "podCIDR")]),
        (manifest("Pod", spec={"nodename": "n1"}), [unknown("spec.nodename", "nodeName")]),
        (pod_port(containerport=1, containerPort=1), [unknown(f"{CONTAINER}.ports[0].containerport", "containerPort")]),
        (probed(httpGet={"port": 80, "pth": "/"}), [unknown(f"{CONTAINER}.readinessProbe.httpGet.pth", "path")]),
        (manifest("Ingress", apiVersion=INGRESS, spec={"backend": {}, "defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}), [unknown("spec.backend", "defaultBackend")]),
    ],
)  # fmt: skip
def test_unknown_fields(content: dict[str, Any], found: list[tuple[str, str]]) -> None:
    result = one(content)
    assert result.problems == []
    assert [(warning.field, warning.message) for warning in result.warnings] == found
    assert {warning.object for warning in result.warnings} == {
        f"{content['kind']} default/{content['metadata']['name']}"
    }


EVERYTHING = manifest(
    "Pod",
    metadata={
        "ownerReferences": [{"kind": "ReplicaSet", "name": "a"}],
        "annotations": {"any": ""},
        "managedFields": [{"x": 1}],
    },
    spec={
        "volumes": [{"name": "a", "anything": 1}],
        "affinity": {"anything": 1},
        "containers": [{"name": "c", "env": [{"anything": 1}], "livenessProbe": {"anything": 1}}],
    },
    status={"containerStatuses": [{"state": {"running": {}}}]},
)


def test_what_kproxy_does_not_read_is_not_checked() -> None:
    assert one(EVERYTHING).warnings == []


@pytest.mark.parametrize(
    ("content", "form", "schema", "is_usual"),
    [
        (service(appProtocol=None), wire.Service, "Service", False),
        (service(), wire.Service, "Service", True),
        (service(topologyKeys=[], ports=[{"port": 80, "appProtocol": "http"}]), wire.Service, "Service", True),
        (service(type=5), wire.Service, "Service", False),
        (slice_(endpoints=[{"addresses": ["10.0.0.1"], "zone": "a", "targetRef": {"uid": "b"}}]), wire.EndpointSlice, "EndpointSlice", True),
        (slice_(endpoints=[{"addresses": ["10.0.0.1"], "targetRef": {"apiGroup": "b"}}]), wire.EndpointSlice, "EndpointSlice", False),
        (EVERYTHING, wire.Pod, "Pod", True),
        (manifest("Ingress", spec={"defaultBackend": {"service": {"name": "a"}}}), wire.Ingress, "Ingress", True),
        (manifest("Ingress", spec={"backend": {"serviceName": "a"}}), wire.Ingress, "Ingress", False),
        (manifest("Ingress", spec={"backend": {"serviceName": "a"}}), wire.Ingress, "IngressBeta", True),
    ],
)  # fmt: skip
def test_usual_objects_are_decoded_in_one_pass(
    content: dict[str, Any], form: Any, schema: str, is_usual: bool
) -> None:
    found = strictly(as_json(content, "f").content, form, schema)
    assert (found is not None) == is_usual
    assert found is None or isinstance(found, form)


OTHER_NAMES = {
    "Condition": ("v1_node_condition", "v1_pod_condition"),
    "EndpointPort": ("core_v1_endpoint_port", "discovery_v1_endpoint_port"),
    "Hint": ("v1_for_zone", "v1_for_node"),
    "IP": ("v1_pod_ip", "v1_host_ip"),
    "IngressHTTP": ("v1_http_ingress_rule_value",),
    "IngressPath": ("v1_http_ingress_path",),
    "IngressService": ("v1_ingress_service_backend",),
    "IngressServicePort": ("v1_service_backend_port",),
    "NodeSystemInfo": ("v1_node_system_info",),
    "TypedReference": ("v1_typed_local_object_reference",),
    "ClientIPConfig": ("v1_client_ip_config",),
    "GRPCAction": ("v1_grpc_action",),
    "HTTPGetAction": ("v1_http_get_action",),
    "HTTPHeader": ("v1_http_header",),
    "TCPSocketAction": ("v1_tcp_socket_action",),
    "IngressTLS": ("v1_ingress_tls",),
}
"""Types whose modules in the client library do not follow from their names."""


def client_fields(type_: str) -> set[str]:
    """The fields of a type in the Kubernetes client library, which is made from the API's own description."""
    found = importlib.util.find_spec("kubernetes")  # reading is enough: to import all models takes seconds
    assert found is not None
    assert found.origin is not None
    snake = "v1" + re.sub("([A-Z])", r"_\1", type_).lower()
    texts = [
        (Path(found.origin).parent / "client" / "models" / f"{module}.py").read_text()
        for module in OTHER_NAMES.get(type_, (snake,))
    ]
    maps = [re.search(r"attribute_map[^=]*= (\{.*?\})", text, re.DOTALL) for text in texts]
    return {field for each in maps if each for field in ast.literal_eval(each[1]).values()}


@pytest.mark.parametrize(
    "type_", [type_ for type_ in TYPES if not type_.endswith("Beta") and type_ not in GATEWAY_TYPES]
)
def test_every_field_of_the_client_library_is_known(type_: str) -> None:
    in_client = client_fields(type_)
    assert in_client
    assert in_client <= fields(type_).keys()


# --- parts that are invalid, and values that kube-proxy reads in its own way ---

LOOPBACK = "is not allowed: loopback address"
LINK_LOCAL = "is not allowed: link-local address"
NOT_AN_ADDRESS = "does not appear to be an IPv4 or IPv6 address"
NULL = 'is null: read as ""'


def read_as(text: str, meant: str) -> str:
    return f"non-standard address {text}: read as {meant}"


def status(*addresses: str) -> dict[str, Any]:
    return labelled({"loadBalancer": {"ingress": [{"ip": text} for text in addresses]}})


def endpoints(*addresses: str, **rest: Any) -> dict[str, Any]:
    return slice_(endpoints=[{"addresses": [text]} for text in addresses], **rest)


def used(result: Decoded) -> list[str]:
    """The addresses and networks of all objects, and the ports of slices."""
    state = result.state
    services = (
        address
        for service in state.services.values()
        for address in (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)
    )
    slices = [slice_ for slices in state.slices.values() for slice_ in slices]
    found = [format_address(address) for address in services]
    found += [format_address(endpoint.address) for slice_ in slices for endpoint in slice_.endpoints]
    found += [f"{port.name}:{port.port}" for slice_ in slices for port in slice_.ports if port.port != 80]
    found += [format_address(address) for pod in state.pods for address in pod.addresses]
    found += [str(network) for service in state.services.values() for network in service.source_ranges]
    return found + [str(network) for node in state.nodes.values() for network in node.pod_cidrs]


WARNED: list[tuple[dict[str, Any], list[tuple[str, str]], list[str]]] = [
    (slice_(ports=[{"name": "a", "port": 81}, {"name": "b", "port": 0}]), [("ports[1].port", "0 is not a port (1-65535): ignored")], ["10.0.0.1", "a:81"]),
    (slice_(ports=[{"port": 65536}]), [("ports[0].port", "65536 is not a port (1-65535): ignored")], ["10.0.0.1"]),
    (slice_(ports=[{"port": -1}]), [("ports[0].port", "-1 is not a port (1-65535): ignored")], ["10.0.0.1"]),
    (subset(ports=[{"port": 0}, {"name": "a", "port": 81}], addresses=[{"ip": "10.0.0.1"}]), [("subsets[0].ports[0].port", "0 is not a port (1-65535): ignored")], ["10.0.0.1", "a:81"]),
    (endpoints("010.0.0.09", "10.0.0.2"), [("endpoints[0].addresses[0]", read_as("010.0.0.09", "10.0.0.9"))], ["10.0.0.9", "10.0.0.2"]),
    (endpoints("::ffff:10.0.0.9"), [("endpoints[0].addresses[0]", read_as("::ffff:10.0.0.9", "10.0.0.9"))], ["10.0.0.9"]),
    (subset(addresses=[{"ip": "10.0.0.010"}]), [("subsets[0].addresses[0].ip", read_as("10.0.0.010", "10.0.0.10"))], ["10.0.0.10"]),
    (manifest("Pod", status={"podIP": "10.0.0.010"}), [("status.podIP", read_as("10.0.0.010", "10.0.0.10"))], ["10.0.0.10"]),
    (service(clusterIP="10.096.0.08"), [("spec.clusterIP", read_as("10.096.0.08", "10.96.0.8"))], ["10.96.0.8"]),
    (service(clusterIP="::ffff:10.96.0.1"), [("spec.clusterIP", read_as("::ffff:10.96.0.1", "10.96.0.1"))], ["10.96.0.1"]),
    (service(externalIPs=["198.051.100.001"]), [("spec.externalIPs[0]", read_as("198.051.100.001", "198.51.100.1"))], ["198.51.100.1"]),
    (status("198.51.100.010"), [("status.loadBalancer.ingress[0].ip", read_as("198.51.100.010", "198.51.100.10"))], ["198.51.100.10"]),
    (status("127.0.0.1"), [("status.loadBalancer.ingress[0].ip", f"127.0.0.1 {LOOPBACK}: not served")], []),
    (status("::1", "198.51.100.1"), [("status.loadBalancer.ingress[0].ip", f"::1 {LOOPBACK}: not served")], ["198.51.100.1"]),
    (status("169.254.1.1"), [("status.loadBalancer.ingress[0].ip", f"169.254.1.1 {LINK_LOCAL}: not served")], []),
    (status("0.0.0.0"), [("status.loadBalancer.ingress[0].ip", "0.0.0.0 is not allowed: unspecified address: not served")], []),
    (status("x"), [("status.loadBalancer.ingress[0].ip", f"'x' {NOT_AN_ADDRESS}: not served")], []),
    (service(type="LoadBalancer", loadBalancerSourceRanges=["010.1.2.3/8"]), [("spec.loadBalancerSourceRanges[0]", "non-standard CIDR 010.1.2.3/8: read as 10.0.0.0/8")], ["10.0.0.0/8"]),
    (service(type="LoadBalancer", loadBalancerSourceRanges=["::ffff:10.0.0.0/104"]), [("spec.loadBalancerSourceRanges[0]", "non-standard CIDR ::ffff:10.0.0.0/104: read as 10.0.0.0/8")], ["10.0.0.0/8"]),
    (manifest("Node", spec={"podCIDR": "10.0.0.1/24"}), [("spec.podCIDR", "non-standard CIDR 10.0.0.1/24: read as 10.0.0.0/24")], ["10.0.0.0/24"]),
    (manifest("Node", spec={"podCIDRs": ["fd00::1/64", "010.1.0.0/24"]}), [("spec.podCIDRs[0]", "non-standard CIDR fd00::1/64: read as fd00::/64"), ("spec.podCIDRs[1]", "non-standard CIDR 010.1.0.0/24: read as 10.1.0.0/24")], ["fd00::/64", "10.1.0.0/24"]),
    (labelled(annotations={"example.com/note": None, "a": "b"}), [("metadata.annotations[example.com/note]", NULL)], []),
    (labelled(labels={"a": None}), [("metadata.labels[a]", NULL)], []),
    (service(selector={"app": None}), [("spec.selector[app]", NULL)], []),
    *((manifest(kind, metadata={"labels": {"a": None}}), [("metadata.labels[a]", NULL)], []) for kind in ("Pod", "Node", "Endpoints")),
    (slice_(metadata={"labels": {"kubernetes.io/service-name": "web", "a": None}}), [("metadata.labels[a]", NULL)], ["10.0.0.1"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "warnings", "addresses"), WARNED)
def test_a_part_that_kube_proxy_ignores_or_reads_in_its_own_way(
    content: dict[str, Any], warnings: list[tuple[str, str]], addresses: list[str]
) -> None:
    result = one(content)
    assert result.problems == []
    assert not result.unreadable
    assert [(warning.field, warning.message) for warning in result.warnings] == warnings
    assert used(result) == addresses


LEFT_OUT: list[tuple[dict[str, Any], tuple[str, str], list[str]]] = [
    (endpoints("x", "10.0.0.2"), ("endpoints[0].addresses[0]", f"'x' {NOT_AN_ADDRESS}"), ["10.0.0.2"]),
    (endpoints("127.0.0.1", "10.0.0.2"), ("endpoints[0].addresses[0]", f"127.0.0.1 {LOOPBACK}"), ["10.0.0.2"]),
    (endpoints("fd00::1", "10.0.0.2"), ("endpoints[0].addresses[0]", "fd00::1 is not of the slice's addressType"), ["10.0.0.2"]),
    (endpoints("::ffff:10.0.0.1", "fd00::2", addressType="IPv6"), ("endpoints[0].addresses[0]", "::ffff:10.0.0.1 is not of the slice's addressType"), ["fd00::2"]),
    (slice_(endpoints=[{"addresses": None}, {"addresses": ["10.0.0.2"]}]), ("endpoints[0].addresses", "is empty"), ["10.0.0.2"]),
    (slice_(ports=[{"port": 80, "protocol": "tcp"}, {"name": "a", "port": 81}]), ("ports[0].protocol", "'tcp' is not one of TCP, UDP, SCTP"), ["10.0.0.1", "a:81"]),
    (subset(addresses=[{"ip": "10.0.0.1"}], notReadyAddresses=[{"ip": "::1"}]), ("subsets[0].notReadyAddresses[0].ip", f"::1 {LOOPBACK}"), ["10.0.0.1"]),
    (service(externalIPs=["198.51.100.1", "127.0.0.1"]), ("spec.externalIPs[1]", f"127.0.0.1 {LOOPBACK}"), ["198.51.100.1"]),
    (service(externalIPs=["x", "198.51.100.1"]), ("spec.externalIPs[0]", f"'x' {NOT_AN_ADDRESS}"), ["198.51.100.1"]),
    (manifest("Pod", status={"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fe80::1"}]}), ("status.podIPs[1].ip", f"fe80::1 {LINK_LOCAL}"), ["10.0.0.1"]),
    (manifest("Node", spec={"podCIDRs": ["pods", "10.1.0.0/24"]}), ("spec.podCIDRs[0]", "'pods' does not appear to be an IPv4 or IPv6 network"), ["10.1.0.0/24"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "problem", "addresses"), LEFT_OUT)
def test_an_invalid_part_does_not_leave_out_the_object(
    content: dict[str, Any], problem: tuple[str, str], addresses: list[str]
) -> None:
    result = one(content)
    assert [(each.field, each.message) for each in result.problems] == [problem]
    assert used(result) == addresses


# --- fields without effect, in kubectl's words ---


def only(kind: str) -> str:
    return f"may only be used when `type` is '{kind}'"


HEALTH_CHECK = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
ACCESSIBLE = "may only be set for externally-accessible services"


@pytest.mark.parametrize(
    ("spec", "warnings"),
    [
        ({"ports": [{"port": 80, "nodePort": 30080}]}, [("spec.ports[0].nodePort", "may not be used when `type` is 'ClusterIP'")]),
        ({"clusterIP": "None", "ports": [{"port": 80, "nodePort": 30080}]}, [("spec.ports[0].nodePort", "may not be used when `type` is 'ClusterIP'")]),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}, []),
        ({"externalTrafficPolicy": "Local"}, [("spec.externalTrafficPolicy", ACCESSIBLE)]),
        ({"externalTrafficPolicy": "Local", "externalIPs": ["198.51.100.1"]}, []),
        ({"externalTrafficPolicy": "Local", "type": "NodePort"}, []),
        ({"type": "ExternalName"}, [("spec.externalName", "Required value")]),
        ({"type": "ExternalName", "externalName": "x.org"}, []),
        ({"loadBalancerIP": "198.51.100.1"}, [("spec.loadBalancerIP", only("LoadBalancer"))]),
        ({"type": "NodePort", "loadBalancerClass": "x/y"}, [("spec.loadBalancerClass", only("LoadBalancer"))]),
        ({"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}, [("spec.loadBalancerSourceRanges", only("LoadBalancer"))]),
        ({"allocateLoadBalancerNodePorts": False}, [("spec.allocateLoadBalancerNodePorts", only("LoadBalancer"))]),
        ({"type": "LoadBalancer", "healthCheckNodePort": 30100}, [("spec.healthCheckNodePort", HEALTH_CHECK)]),
        ({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30100}, []),
        ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}, [("spec.sessionAffinityConfig", "must not be set when session affinity is None")]),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}, []),
    ],
)  # fmt: skip
def test_fields_without_effect(spec: dict[str, Any], warnings: list[tuple[str, str]]) -> None:
    result = one(service(**spec))
    assert result.problems == []
    assert [(warning.field, warning.message) for warning in result.warnings] == warnings
    assert name("web") in result.state.services


def test_keys_that_occur_twice() -> None:
    others = Document("f", manifest("Deployment", apiVersion="apps/v1"), repeated=("replicas",))
    result = decode([Document("f", service(), 2, 9, ("ports",)), others])
    assert [str(each) for each in result.warnings] == [
        'f: document 2 (line 9): has the key "ports" twice: the last one is used'
    ]


def test_unknown_fields_of_many_objects_are_found_in_json() -> None:
    items = [service("a"), service("b", selectr={}), service("c")]
    result = decode([as_json({"apiVersion": "v1", "kind": "List", "items": items}, "f")])
    assert [str(each) for each in result.warnings] == [
        "f: Service default/b: spec.selectr: unknown field. Did you mean selector?"
    ]
