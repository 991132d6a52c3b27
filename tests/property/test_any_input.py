"""Any input decodes to objects, or to problems that name file, object and field."""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from kproxy.controlplane.hold import InUse
from kproxy.decode import Document, decode
from kproxy.decode.fields import FieldError, Notes, unicast_address
from kproxy.decode.objects import Unreadable
from kproxy.model import Node
from kproxy.show.snapshot import Snapshot, encode
from kproxy.show.snapshot import decode as snapshot_of
from kproxy.sources.core.inventory import manifest_inventory
from kproxy.sources.documents import parse
from tests.unit.make import as_json, manifest, service

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["10.96.0.1", "fd00::1", "None", "TCP", "IPv4", "v1", "Service", "List", "a/b", "ready"]
    )
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
OBJECTS: list[dict[str, Any]] = [
    service(
        type="NodePort",
        clusterIP="10.96.0.1",
        clusterIPs=["10.96.0.1"],
        ipFamilies=["IPv4"],
        selector={"app": "web"},
        sessionAffinity="ClientIP",
        sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}},
        ports=[{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080, "protocol": "TCP"}],
    ),
    manifest(
        "Service",
        metadata={
            "labels": {"app": "web"},
            "annotations": {"kproxy.io/weights": "web-1=3,10.0.0.2=2", "kproxy.io/consistent-hash": "client"},
        },
        spec={
            "type": "LoadBalancer",
            "externalIPs": ["198.51.100.1", "2001:db8::1"],
            "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["10.0.0.0/8", "fd00::/8"],
            "allocateLoadBalancerNodePorts": False,
            "trafficDistribution": "PreferSameZone",
            "ports": [{"port": 80}],
        },
        status={"loadBalancer": {"ingress": [{"ip": "198.51.100.2", "ipMode": "VIP"}]}},
    ),
    manifest(
        "Node",
        metadata={"labels": {"topology.kubernetes.io/zone": "a"}},
        spec={"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]},
    ),
    manifest(
        "EndpointSlice",
        metadata={"labels": {"kubernetes.io/service-name": "web"}},
        addressType="IPv4",
        ports=[{"name": "http", "port": 80, "protocol": "TCP"}],
        endpoints=[
            {
                "addresses": ["10.0.0.1"],
                "nodeName": "n",
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "hints": {"forZones": [{"name": "a"}], "forNodes": [{"name": "n"}]},
                "targetRef": {"kind": "Pod", "name": "web-1"},
            }
        ],
    ),
    manifest("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]),
    manifest(
        "Pod",
        metadata={"labels": {"app": "web"}},
        spec={"containers": [{"ports": [{"name": "http", "containerPort": 80}]}]},
        status={
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"ready": True, "restartCount": 1}],
        },
    ),
]
BACKEND: dict[str, Any] = {"service": {"name": "web", "port": {"number": 80}}}
INGRESS: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "web"},
    "spec": {
        "ingressClassName": "a",
        "defaultBackend": BACKEND,
        "tls": [{"hosts": ["example.org"], "secretName": "s"}],
        "rules": [
            {
                "host": "*.example.org",
                "http": {"paths": [{"path": "/a", "pathType": "Exact", "backend": BACKEND}]},
            }
        ],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.2"}, {"hostname": "example.org"}]}},
}
"""kproxy programs nothing for an Ingress, so an unreadable one protects no Service."""


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path in a value, the value's own first."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    return [path, *(each for key, inner in members for each in paths(inner, (*path, key)))]


def spoiled(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """`value` with `other` at `path`."""
    if not path:
        return other
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = spoiled(changed[path[0]], path[1:], other)
    return changed


def spoiled_of(objects: list[dict[str, Any]]) -> st.SearchStrategy[Any]:
    """One of the objects, with any value at one path."""
    return st.sampled_from(objects).flatmap(
        lambda whole: st.builds(spoiled, st.just(whole), st.sampled_from(paths(whole)), anything)
    )


spoiled_objects = spoiled_of([each for each in OBJECTS if each["kind"] != "Node"])
"""A Node protects no Service, either."""
spoiled_any = spoiled_of([*OBJECTS, INGRESS])
GOOD = service("good")


@given(st.lists(spoiled_any | anything, max_size=3), st.booleans())
def test_an_invalid_object_does_not_affect_the_others(contents: list[Any], as_list: bool) -> None:
    items = [*contents, GOOD]
    whole = [{"apiVersion": "v1", "kind": "List", "items": items}] if as_list else items
    loaded = decode(Document("f", content) for content in whole)
    assert any(service.name.name == "good" for service in loaded.state.services.values())
    assert {problem.source for problem in loaded.problems} <= {"f"}
    assert all(problem.message for problem in loaded.problems)
    text = decode(as_json(content, "f") for content in whole)
    assert (text.state, text.problems, text.ignored) == (loaded.state, loaded.problems, loaded.ignored)
    assert vars(text.unreadable) == vars(loaded.unreadable)


class Quoting(yaml.SafeDumper):
    """Quotes all text that kubectl would not read as text."""


Quoting.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[yYnN]"), list("yYnN"))
Quoting.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+.]?[0-9_.oxbOXB]+([eE][-+]?[0-9]+)?"), list("-+.0123456789")
)


def whole_if_possible(text: str) -> int | float:
    """kubectl reads `1.0` of YAML as 1, and of JSON as an error where a whole number is expected."""
    number = float(text)
    return int(number) if number.is_integer() else number


@given(spoiled_any.filter(lambda content: isinstance(content, dict)))
def test_json_and_yaml_decode_equally(content: Any) -> None:
    content = json.loads(json.dumps(content), parse_float=whole_if_possible)
    files = (
        json.dumps({"kind": "List", "apiVersion": "v1", "items": [content]}),
        yaml.dump(content, Dumper=Quoting, sort_keys=False),
    )
    json_result, yaml_result = (
        decode(item for item in parse("f", text.encode()) if isinstance(item, Document)) for text in files
    )
    assert json_result.state == yaml_result.state
    assert [each._replace(object="") for each in json_result.problems] == [
        each._replace(object="") for each in yaml_result.problems
    ]
    assert json_result.warnings == yaml_result.warnings


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_documents_or_problems(data: bytes) -> None:
    found = list(parse("f", data))
    assert decode(item for item in found if isinstance(item, Document)).state.services == {}
    assert all(isinstance(item, Document) or item.source == "f" for item in found)


@given(spoiled_objects)
def test_an_unreadable_object_protects_services(content: Any) -> None:
    result = decode([Document("f", content)])
    unreadable = result.unreadable
    harmless = "Did you mean Node?", "Did you mean Ingress?", "Did you mean ServiceCIDR?"
    if any(not problem.message.endswith(harmless) for problem in result.problems):
        assert unreadable.everything or unreadable.services or unreadable.namespaces
    elif result.problems:
        assert not unreadable
    else:
        assert vars(unreadable) == vars(Unreadable())


@given(st.lists(spoiled_any, max_size=3))
def test_decoded_objects_survive_the_encoding_of_a_snapshot(contents: list[Any]) -> None:
    found = decode(Document("f", content) for content in contents)
    state = found.state
    inventory = manifest_inventory(state, InUse(state.services, state.slices), Node("n1"))
    snapshot = Snapshot(inventory, [], found.problems, Node("n1"))
    assert snapshot_of(encode(snapshot)) == snapshot


def test_paths_of_a_value() -> None:
    assert paths({"a": [1]}) == [(), ("a",), ("a", 0)]
    assert spoiled({"a": [1]}, ("a", 0), 2) == {"a": [2]}


dotted = st.lists(
    st.integers(-1, 300).map(str) | st.sampled_from(("01", "", "1 ", "1")), min_size=3, max_size=5
)


@given(dotted.map(".".join) | st.ip_addresses().map(str) | st.text(max_size=12))
def test_addresses_are_parsed_as_by_ipaddress(text: str) -> None:
    """Zeros before a decimal number are ignored."""
    try:
        found = ip_address(re.sub(r"(^|[.:])0+(?=\d)", r"\1", text) if "." in text else text)
    except ValueError:
        expected = None
    else:
        if found.version == 6 and not found.scope_id:
            found = found.ipv4_mapped or found
        fits = not (found.is_loopback or found.is_unspecified or found.is_link_local or found.is_multicast)
        fits = fits and str(found) != "255.255.255.255"
        expected = found.packed if fits and not (found.version == 6 and found.scope_id) else None
    notes = Notes()
    try:
        assert unicast_address("field", text, notes) == expected
    except FieldError:
        assert expected is None
    assert not notes.left_out
