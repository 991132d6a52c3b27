"""Which pods a lab starts for manifests: computed, without a lab."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from netns_lab.documents import documents, with_replicas
from netns_lab.external import external_hosts
from netns_lab.images import image_name, ports_of
from netns_lab.manifests import lab_objects
from netns_lab.topology import Pod, Port, Topology, nodes_only
from netns_lab.workloads import plan, read_objects, with_surroundings

Manifest = dict[str, Any]
KUBIA = {"name": "kubia", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}


def workload(kind: str, replicas: int | None = 2, version: str = "apps/v1", **spec: Any) -> Manifest:
    template = {"metadata": {"labels": {"app": "kubia"}}, "spec": {"containers": [KUBIA], **spec}}
    number = {} if replicas is None else {"replicas": replicas}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": "kubia"},
        "spec": {**number, "template": template},
    }


def pod(name: str, **spec: Any) -> Manifest:
    containers = {"containers": [{"name": "main", "image": "tutum/dnsutils"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**containers, **spec}}


def letters() -> Callable[[], str]:
    number = count()
    return lambda: f"bcd{next(number):02}"


def applied(topology: Topology, *objects: Manifest, doomed: tuple[str, ...] = ()) -> Topology:
    """The lab after it followed these manifests."""
    changes = plan(read_objects(objects), topology, letters(), doomed)
    kept = tuple(each for each in topology.pods if each.name not in changes.remove)
    return replace(topology, pods=(*kept, *changes.start))


def names(topology: Topology) -> list[str]:
    return [each.name for each in topology.pods]


RC = "ReplicationController"


@pytest.mark.parametrize(
    ("manifest", "started"),
    [
        (pod("dnsutils"), ["dnsutils"]),
        (workload(RC, version="v1"), ["kubia-bcd00", "kubia-bcd01"]),
        (workload("ReplicaSet"), ["kubia-bcd00", "kubia-bcd01"]),
        (workload("ReplicaSet", None), ["kubia-bcd00"]),
        (workload("StatefulSet", 3), ["kubia-0", "kubia-1", "kubia-2"]),
        (workload("DaemonSet", None), ["kubia-bcd00", "kubia-bcd01", "kubia-bcd02"]),
        (workload("ReplicaSet", version="example.org/v1"), []),
        ({**workload("ReplicaSet"), "kind": "Service"}, []),
        ({"apiVersion": "v1", "kind": "List", "items": [pod("a"), pod("b")]}, ["a", "b"]),
    ],
)
def test_the_pods_of_a_manifest(manifest: Manifest, started: list[str]) -> None:
    lab = applied(nodes_only(3), manifest)
    assert names(lab) == started
    assert names(applied(lab, manifest)) == started  # again: nothing to change


def test_the_pods_of_a_deployment_are_replaced_with_its_template() -> None:
    old = applied(nodes_only(1), workload("Deployment"))
    assert [name.count("-") for name in names(old)] == [2, 2]
    new = applied(old, workload("Deployment", hostname="other"))
    assert set(names(old)).isdisjoint(names(new))
    assert len(new.pods) == 2
    long = {"metadata": {"name": "w" * 70}}
    old = applied(nodes_only(1), workload("Deployment") | long)
    new = applied(old, workload("Deployment", hostname="other") | long)
    assert set(names(old)).isdisjoint(names(new))
    assert {len(name) for name in [*names(old), *names(new)]} == {63}
    # those of a ReplicationController are not
    old = applied(nodes_only(1), workload(RC, version="v1"))
    assert names(applied(old, workload(RC, version="v1", hostname="other"))) == names(old)


def test_pods_are_spread_over_nodes_and_have_addresses_that_are_not_used_again_at_once() -> None:
    lab = applied(nodes_only(2), workload("ReplicaSet", 3))
    assert [(each.node, each.v4) for each in lab.pods] == [
        ("n1", "10.244.1.2"),
        ("n2", "10.244.2.2"),
        ("n1", "10.244.1.3"),
    ]
    last = lab.pods[-1].name
    after = plan(read_objects([workload("ReplicaSet", 3)]), lab, lambda: "xxxxx", [last])
    assert after.remove == (last,)
    assert [each.v4 for each in after.start] == ["10.244.1.4"]


def test_scaling_down_keeps_the_oldest_pods() -> None:
    lab = applied(nodes_only(1), workload("ReplicaSet", 3))
    assert names(applied(lab, workload("ReplicaSet", 1))) == names(lab)[:1]
    assert names(applied(lab)) == []


def test_a_pod_of_its_own_name_is_started_again() -> None:
    lab = applied(nodes_only(1), pod("dnsutils"))
    after = plan(read_objects([pod("dnsutils")]), lab, letters(), ["dnsutils"])
    assert (after.remove, [each.name for each in after.start]) == (("dnsutils",), ["dnsutils"])


def test_pods_that_were_not_started_for_manifests_stay() -> None:
    own = nodes_only(1).with_pod(Pod("mine", "n1", "10.244.1.9", "fd00:10:244:1::9"))
    assert names(applied(own, pod("dnsutils"))) == ["mine", "dnsutils"]


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (
            workload("ReplicaSet", 1, containers=[{"ports": [{"containerPort": 0}]}]),
            "containerPort 0 is not a",
        ),
        (
            workload("ReplicaSet", 1, containers=[{"ports": [{"containerPort": 1, "protocol": "SCTP"}]}]),
            "SCTP",
        ),
        ({"apiVersion": "v1", "kind": "Pod", "spec": {}}, "Pod without a name"),
        ({**workload("ReplicaSet"), "spec": {}}, "ReplicaSet kubia"),
        ({**workload("ReplicaSet"), "spec": []}, "ReplicaSet kubia: 'template' is missing"),
        ({**workload("ReplicaSet"), "spec": [1]}, "ReplicaSet kubia"),
        ({**workload("ReplicaSet"), "metadata": "kubia"}, "ReplicaSet without a name"),
        ({**workload("ReplicaSet"), "metadata": {}}, "ReplicaSet without a name: 'name' is missing"),
        (workload("ReplicaSet", -1), "spec.replicas: -1 is not a number from 0 to 100"),
        (workload("ReplicaSet", 10**9), "spec.replicas: 1000000000 is not a number"),
        (pod("a", containers=[1]), "Pod a: "),
        ({**pod("a"), "metadata": {"name": "a", "labels": ["b"]}}, "Pod a: "),
        *(
            ({**pod("a"), "metadata": {"name": name}}, "metadata.name: .* is not text")
            for name in (5, None, True, ["a"], {"a": "b"})
        ),
        ({**pod("a"), "metadata": {"name": "a", "namespace": 5}}, "metadata.namespace: 5 is not text"),
        (pod("a", containers=[{"env": [{"name": 5, "value": "x"}]}]), "Pod a: env: 5 is not text"),
        ({**pod("a"), "status": {"podIPs": [{"ip": 5}]}}, "Pod a: status.podIPs: 5 is not text"),
        ({**pod("a"), "status": {"podIP": 5}}, "Pod a: status.podIP: 5 is not text"),
        ({"apiVersion": "v1", "kind": "List", "items": 5}, "List without a name: "),
        ({"apiVersion": "v1", "kind": "List", "items": [5]}, "List without a name: "),
    ],
)
def test_an_error_names_the_object(manifest: Manifest, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(read_objects([manifest]), nodes_only(1), letters())


def test_the_objects_for_others() -> None:
    probe = {"exec": {"command": ["ls", "/var/ready"]}}
    lab = applied(
        nodes_only(1),
        workload("ReplicaSet", 1, containers=[{**KUBIA, "readinessProbe": probe}]),
        pod("dnsutils", hostNetwork=True),
        {**pod("known"), "status": {"podIP": "10.244.1.77"}},
    )
    node, kubia, other = lab_objects(lab, ["dnsutils"], "2026-01-01T00:00:00Z")
    assert (node["kind"], node["status"]["addresses"][0]["address"]) == ("Node", "192.168.77.11")
    assert kubia["metadata"]["labels"] == {"app": "kubia"}
    assert kubia["spec"]["containers"][0]["readinessProbe"] == probe
    assert (kubia["status"]["podIP"], "conditions" in kubia["status"]) == ("10.244.1.2", False)
    assert (other["status"]["podIP"], other["spec"]["hostNetwork"]) == ("192.168.77.11", True)
    assert other["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    assert lab.pod("known").v4 == "10.244.1.77"


def test_the_surroundings_of_a_pod() -> None:
    variables = [{"name": "A", "value": "mine"}, {"name": "B", "valueFrom": {}}]
    containers = [{"name": "main", "env": variables}]
    here, there, same = applied(
        nodes_only(1),
        pod("here", containers=containers),
        pod("there", hostNetwork=True),
        pod("same", hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet"),
    ).pods
    started = [
        with_surroundings(each, {"A": "1", "C": "2"}, "nameserver 10.96.0.10\n", "now")
        for each in (here, there, same)
    ]
    assert started[0].environment == {"A": "mine", "C": "2"}
    assert [bool(each.resolv_conf) for each in started] == [True, False, True]


@pytest.mark.parametrize(
    ("container", "ports"),
    [
        (KUBIA, (Port("", 8080),)),
        ({"image": "luksa/kubia"}, (Port("", 8080),)),
        ({"image": "nginx:1.27", "ports": [{"containerPort": 80, "name": "http"}]}, (Port("http", 80),)),
        (
            {"image": "kubia", "ports": [{"containerPort": 8090, "name": "http-mux1"}]},
            (Port("http-mux1", 8090, text="on mux1"),),
        ),
        ({"image": "luksa/kubia-unhealthy"}, (Port("", 8080, fails_after=5),)),
        ({"image": "curlimages/curl:8.5.0"}, ()),
        ({"image": "tutum/dnsutils"}, ()),
        ({"image": "nginx", "command": ["/bin/sleep", "infinity"]}, ()),
        ({"image": "dns", "ports": [{"containerPort": 53, "protocol": "UDP"}]}, (Port("", 53, "udp"),)),
        ({}, (Port("", 8080),)),
    ],
)
def test_what_stands_for_an_image(container: Manifest, ports: tuple[Port, ...]) -> None:
    assert ports_of(container) == ports


def test_the_name_of_an_image() -> None:
    for image in ("kubia", "luksa/kubia", "registry.example:5000/luksa/kubia:v1", "luksa/kubia:v1@sha256:aa"):
        assert image_name(image) == "kubia"


BLOCK = """# two objects
kind: Service
metadata: {name: kubia}
---
kind: ReplicationController
metadata:
  name: kubia
spec:
  replicas: 3  # as in the book
  template: {}
"""
FLOW = '{"kind": "List", "items": [{"kind": "ReplicaSet", "metadata": {"name": "kubia"}, "spec": {"a": 1}}]}'


@pytest.mark.parametrize(
    ("text", "kind", "old", "new"),
    [
        (BLOCK, RC, "replicas: 3 ", "replicas: 5 "),
        (
            BLOCK.replace("  replicas: 3  # as in the book\n", ""),
            RC,
            "  template",
            "  replicas: 5\n  template",
        ),
        (FLOW, "ReplicaSet", '{"a"', '{"replicas": 5, "a"'),
    ],
)
def test_replicas_are_changed_in_the_text(text: str, kind: str, old: str, new: str) -> None:
    assert with_replicas(text, kind, "kubia", 5) == text.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: [", "did not find expected node content", id="an open bracket"),
        pytest.param("a: " + "[" * 100_000 + "]" * 100_000, "more than 100 levels", id="a deep list"),
        pytest.param(
            "a:\n" + "\n".join(" " * n + "b:" for n in range(1, 200)), "100 levels", id="deep mappings"
        ),
        pytest.param(f"a: {'9' * 5000}", "Exceeds the limit", id="a huge number"),
        pytest.param("a: !!timestamp x", "does not have the form of its tag", id="a time that is none"),
        pytest.param(
            "v0: &v0 [x]\n"
            + "\n".join(f"v{n}: &v{n} [{', '.join([f'*v{n - 1}'] * 9)}]" for n in range(1, 20)),
            "has more than 2000000 characters as JSON",
            id="aliases of aliases",
        ),
    ],
)
def test_files_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.yaml: .*{message}"):
        list(documents([str(tmp_path)]))


def test_documents_are_as_json_has_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{kind: Pod, metadata: {labels: {1: x}, annotations: {at: 2020-01-01}}}")
    (found,) = documents([str(tmp_path)])
    assert found[1]["metadata"] == {"labels": {"1": "x"}, "annotations": {"at": "2020-01-01"}}
    (tmp_path / "b.yaml").write_text("a: &a [*a]")
    with pytest.raises(ValueError, match=r"b\.yaml: not an object of Kubernetes"):
        list(documents([str(tmp_path)]))


@pytest.mark.parametrize(
    "subsets", ["x", [1], [{"addresses": [{"ip": "x"}], "ports": [{"port": 1}]}], [{"addresses": 1}]]
)
def test_external_hosts_that_are_invalid(subsets: object) -> None:
    with pytest.raises(ValueError, match="Endpoints e: "):
        external_hosts([{"kind": "Endpoints", "metadata": {"name": "e"}, "subsets": subsets}])


def test_external_hosts() -> None:
    endpoints = {
        "kind": "Endpoints",
        "subsets": [{"addresses": [{"ip": "13.250.94.254"}, {"ip": "10.244.1.2"}], "ports": [{"port": 80}]}],
    }
    found = {
        "kind": "EndpointSlice",
        "endpoints": [{"addresses": ["2001:db8::1"]}],
        "ports": [{"port": 443}, {"port": 53, "protocol": "UDP"}],
    }
    one, two = external_hosts([{"kind": "List", "items": [endpoints, found]}, pod("a")])
    assert (one.name, one.v4, one.ports) == ("external-1", "13.250.94.254", (Port("", 80),))
    assert (two.name, two.v6, two.ports) == ("external-2", "2001:db8::1", (Port("", 443),))


def test_an_object_owns_only_its_pods() -> None:
    (of_set,) = read_objects([workload("ReplicaSet", 1)])
    lab = applied(nodes_only(1), workload("ReplicaSet", 1))
    assert of_set.owns(lab.pods[0])
    assert not replace(of_set, namespace="other").owns(lab.pods[0])
    (of_pod,) = read_objects([pod(lab.pods[0].name)])
    assert not of_pod.owns(lab.pods[0])
