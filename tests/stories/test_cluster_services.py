"""Services that change what they are while kproxy follows their cluster: packets go where they should."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from netns_lab.topology import Family

from tests.stories.following import Follow, Told
from tests.support import FAMILIES, Manifest, service, slices

pytestmark = pytest.mark.lab

NODE_PORT = 30080
GIVEN: dict[Family, str] = {4: "203.0.113.5", 6: "2001:db8:9::5"}
HEADLESS = {"service.kubernetes.io/headless": ""}
ELSEWHERE = {"service.kubernetes.io/service-proxy-name": "other"}


@pytest.fixture
def told(following: Follow) -> Iterator[Told]:
    with following() as told:
        yield told


def typed(kind: str, **spec: Any) -> Manifest:
    """The service as one of this type."""
    if kind == "ExternalName":
        name = service()
        return {**name, "spec": {"type": kind, "externalName": "example.org", "ports": name["spec"]["ports"]}}
    port = {"port": 80, "targetPort": 8080, **({"nodePort": NODE_PORT} if kind != "ClusterIP" else {})}
    made = service("web", port, type=kind, **spec)
    if kind == "LoadBalancer":
        made["status"] = {"loadBalancer": {"ingress": [{"ip": ip} for ip in GIVEN.values()]}}
    return made


def labelled(made: Manifest, **labels: str) -> Manifest:
    """The same with these labels too."""
    made = copy.deepcopy(made)
    made["metadata"].setdefault("labels", {}).update(labels)
    return made


def served(told: Told, pod: str) -> set[str]:
    """Where the pod answers, of all the addresses that a service may be shown on."""
    node = told.lab.node("n1")
    places = {
        "ClusterIP": ("", 80),
        "NodePort": (node, NODE_PORT),
        "LoadBalancer": (GIVEN, 80),
    }
    return {
        kind
        for kind, (at, port) in places.items()
        if all(
            told.answering(family, at if isinstance(at, str) else _address(at, family), port) == {pod}
            for family in FAMILIES
        )
    }


def _address(at: Any, family: Family) -> str:
    return str(at[family] if isinstance(at, dict) else at.address(family))


def test_a_service_changes_its_type_and_back(told: Told) -> None:
    shown = {
        "ClusterIP": {"ClusterIP"},
        "NodePort": {"ClusterIP", "NodePort"},
        "LoadBalancer": {"ClusterIP", "NodePort", "LoadBalancer"},
        "ExternalName": set(),
    }
    there = list(shown)
    told.apply(*slices(told.lab, ["pod-1"]))  # before there is a service
    for kind in (*there, *reversed(there[:-1])):
        told.apply(typed(kind))
        told.right()
        assert served(told, "pod-1") == shown[kind], kind


def test_slices_that_come_before_their_service(told: Told) -> None:
    told.apply(*slices(told.lab, ["pod-1", "pod-2"]))
    told.right()
    assert told.answering() & {"pod-1", "pod-2"} == set()
    told.apply(service())
    told.right()
    assert told.answering() == {"pod-1", "pod-2"}
    told.delete(service())
    told.right()
    assert told.answering() & {"pod-1", "pod-2"} == set()
    told.apply(service())
    told.right()
    assert told.answering() == {"pod-1", "pod-2"}


def test_a_slice_goes_to_another_service_by_its_label(told: Told) -> None:
    ips: dict[Family, str] = {4: "10.96.10.20", 6: "fd00:96::20"}
    mine = slices(told.lab, ["pod-1"])
    told.apply(service(), service("other", cluster_ips=ips), *mine)
    told.right()
    assert told.answering() == {"pod-1"}
    told.apply(*(labelled(one, **{"kubernetes.io/service-name": "other"}) for one in mine))
    told.right()
    assert told.answering() == {"refused"}
    assert told.answering(address=ips[4]) == {"pod-1"}
    without = copy.deepcopy(mine)
    for one in without:
        del one["metadata"]["labels"]
    told.apply(*without)
    told.right()
    assert told.answering(address=ips[4]) == {"refused"}
    told.apply(*mine)
    told.right()
    assert told.answering() == {"pod-1"}


def test_labels_take_a_service_away_and_give_it_back(told: Told) -> None:
    whole = (service(), *slices(told.lab, ["pod-1"]))
    told.apply(*whole)
    told.right()
    for taken in (
        [labelled(whole[0], **ELSEWHERE)],
        [{**whole[0], "spec": {**whole[0]["spec"], "clusterIP": "None", "clusterIPs": ["None"]}}],
        [labelled(one, **HEADLESS) for one in whole[1:]],
    ):
        assert told.answering() == {"pod-1"}
        told.apply(*taken)
        told.right()
        assert told.answering() & {"pod-1"} == set()
        told.apply(*whole)
        told.right()
    assert [told.answering(family) for family in FAMILIES] == [{"pod-1"}, {"pod-1"}]


def test_families_come_and_go(told: Told) -> None:
    told.apply(service(), *slices(told.lab, ["pod-1"]))
    told.right()
    for families in ((4,), (6,), (6, 4), (4, 6)):
        told.apply(service(families=families))
        told.right()
        for family in FAMILIES:
            assert (told.answering(family) == {"pod-1"}) == (family in families)


def test_the_views_say_what_is_not_followed(told: Told) -> None:
    headless = service("db", clusterIP="None", clusterIPs=["None"])
    hidden = [labelled(one, **HEADLESS) for one in slices(told.lab, ["pod-2"], name="db")]
    told.apply(service(), *slices(told.lab, ["pod-1"]), headless, *hidden)
    told.right()
    unknown = "endpoints not followed (headless)"

    def view(*command: str) -> list[str]:
        return [" ".join(line.split()) for line in told.running.view(*command).splitlines()]

    assert view("get", "pods") == view("get", "po", "-A") == ["kproxy does not follow Pods; ask kubectl"]
    assert view("describe", "pod", "pod-1") == ["kproxy does not follow Pods; ask kubectl"]
    assert view("get", "ing") == ["kproxy does not follow Ingresses; ask kubectl"]
    listed = view("get", "svc,pods", "-o", "name")
    assert {"service/web", "service/db", "kproxy does not follow Pods; ask kubectl"} <= set(listed)
    assert any(line.startswith(f"db {unknown} ") for line in view("get", "endpoints"))
    assert f"Endpoints: {unknown}" in view("describe", "svc", "db")
    assert unknown in view("describe", "ep", "db")
    web = view("describe", "svc", "web")
    assert f"Endpoints: {told.lab.pod('pod-1').address(4)}:8080" in "\n".join(web)
    assert not any(line.startswith("Annotations:") for line in web)
    assert "kproxy follows only the Node of this node; ask kubectl for the others" in view("get", "nodes")


def test_a_cluster_ip_and_a_node_port_go_to_another_service_at_once(told: Told) -> None:
    mine, theirs = typed("NodePort"), {**typed("NodePort"), "metadata": {"name": "heir"}}
    told.apply(mine, *slices(told.lab, ["pod-1"]), *slices(told.lab, ["pod-2"], name="heir"))
    told.right()
    with told.burst():
        told.delete(mine)
        told.apply(theirs)
    told.right()
    assert served(told, "pod-2") == {"ClusterIP", "NodePort"}
    with told.burst():
        told.delete(theirs)
        told.apply(mine)
    told.right()
    assert served(told, "pod-1") == {"ClusterIP", "NodePort"}
