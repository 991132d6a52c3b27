"""Services change their type, labels, families and addresses while kproxy follows the cluster."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from netns_lab.topology import Family

from tests.stories.following import ClusterStory, Follow
from tests.support import FAMILIES, Manifest, service, slices

pytestmark = pytest.mark.lab

NODE_PORT = 30080
LB_IPS: dict[Family, str] = {4: "203.0.113.5", 6: "2001:db8:9::5"}
HEADLESS = {"service.kubernetes.io/headless": ""}
OTHER_PROXY = {"service.kubernetes.io/service-proxy-name": "other"}


@pytest.fixture
def story(following: Follow) -> Iterator[ClusterStory]:
    with following() as story:
        yield story


def typed(kind: str, **spec: Any) -> Manifest:
    """Return the Service with this type."""
    if kind == "ExternalName":
        name = service()
        return {**name, "spec": {"type": kind, "externalName": "example.org", "ports": name["spec"]["ports"]}}
    port = {"port": 80, "targetPort": 8080, **({"nodePort": NODE_PORT} if kind != "ClusterIP" else {})}
    made = service("web", port, type=kind, **spec)
    if kind == "LoadBalancer":
        made["status"] = {"loadBalancer": {"ingress": [{"ip": ip} for ip in LB_IPS.values()]}}
    return made


def labelled(made: Manifest, **labels: str) -> Manifest:
    """Return a copy with these additional labels."""
    made = copy.deepcopy(made)
    made["metadata"].setdefault("labels", {}).update(labels)
    return made


def served(story: ClusterStory, pod: str) -> set[str]:
    """Return on which kinds of addresses the pod answers."""
    node = story.lab.node("n1")
    places = {
        "ClusterIP": ("", 80),
        "NodePort": (node, NODE_PORT),
        "LoadBalancer": (LB_IPS, 80),
    }
    return {
        kind
        for kind, (at, port) in places.items()
        if all(
            story.answering(family, at if isinstance(at, str) else _address(at, family), port) == {pod}
            for family in FAMILIES
        )
    }


def _address(at: Any, family: Family) -> str:
    return str(at[family] if isinstance(at, dict) else at.address(family))


def test_a_service_changes_its_type_and_back(story: ClusterStory) -> None:
    shown = {
        "ClusterIP": {"ClusterIP"},
        "NodePort": {"ClusterIP", "NodePort"},
        "LoadBalancer": {"ClusterIP", "NodePort", "LoadBalancer"},
        "ExternalName": set(),
    }
    there = list(shown)
    story.apply(*slices(story.lab, ["pod-1"]))  # before the Service exists
    for kind in (*there, *reversed(there[:-1])):
        story.apply(typed(kind))
        story.converges()
        assert served(story, "pod-1") == shown[kind], kind


def test_slices_that_are_older_than_their_service(story: ClusterStory) -> None:
    story.apply(*slices(story.lab, ["pod-1", "pod-2"]))
    story.converges()
    assert story.answering() & {"pod-1", "pod-2"} == set()
    story.apply(service())
    story.converges()
    assert story.answering() == {"pod-1", "pod-2"}
    story.delete(service())
    story.converges()
    assert story.answering() & {"pod-1", "pod-2"} == set()
    story.apply(service())
    story.converges()
    assert story.answering() == {"pod-1", "pod-2"}


def test_a_changed_label_moves_a_slice_to_another_service(story: ClusterStory) -> None:
    ips: dict[Family, str] = {4: "10.96.10.20", 6: "fd00:96::20"}
    mine = slices(story.lab, ["pod-1"])
    story.apply(service(), service("other", cluster_ips=ips), *mine)
    story.converges()
    assert story.answering() == {"pod-1"}
    story.apply(*(labelled(one, **{"kubernetes.io/service-name": "other"}) for one in mine))
    story.converges()
    assert story.answering() == {"refused"}
    assert story.answering(address=ips[4]) == {"pod-1"}
    without = copy.deepcopy(mine)
    for one in without:
        del one["metadata"]["labels"]
    story.apply(*without)
    story.converges()
    assert story.answering(address=ips[4]) == {"refused"}
    story.apply(*mine)
    story.converges()
    assert story.answering() == {"pod-1"}


def test_labels_exclude_a_service_and_include_it_again(story: ClusterStory) -> None:
    whole = (service(), *slices(story.lab, ["pod-1"]))
    story.apply(*whole)
    story.converges()
    for taken in (
        [labelled(whole[0], **OTHER_PROXY)],
        [{**whole[0], "spec": {**whole[0]["spec"], "clusterIP": "None", "clusterIPs": ["None"]}}],
        [labelled(one, **HEADLESS) for one in whole[1:]],
    ):
        assert story.answering() == {"pod-1"}
        story.apply(*taken)
        story.converges()
        assert story.answering() & {"pod-1"} == set()
        story.apply(*whole)
        story.converges()
    assert [story.answering(family) for family in FAMILIES] == [{"pod-1"}, {"pod-1"}]


def test_families_are_added_and_removed(story: ClusterStory) -> None:
    story.apply(service(), *slices(story.lab, ["pod-1"]))
    story.converges()
    for families in ((4,), (6,), (6, 4), (4, 6)):
        story.apply(service(families=families))
        story.converges()
        for family in FAMILIES:
            assert (story.answering(family) == {"pod-1"}) == (family in families)


def test_the_views_report_what_is_not_followed(story: ClusterStory) -> None:
    headless = service("db", clusterIP="None", clusterIPs=["None"])
    hidden = [labelled(one, **HEADLESS) for one in slices(story.lab, ["pod-2"], name="db")]
    story.apply(service(), *slices(story.lab, ["pod-1"]), headless, *hidden)
    story.converges()
    unknown = "endpoints not followed (headless)"

    def view(*command: str) -> list[str]:
        return [" ".join(line.split()) for line in story.running.view(*command).splitlines()]

    own = ("-n", story.namespace)
    assert view("get", "pods") == view("get", "po", "-A") == ["kproxy does not follow Pods; ask kubectl"]
    assert view("describe", "pod", "pod-1") == ["kproxy does not follow Pods; ask kubectl"]
    assert view("get", "ing") == ["kproxy does not follow Ingresses; ask kubectl"]
    listed = view("get", "svc,pods", "-o", "name", *own)
    assert {"service/web", "service/db", "kproxy does not follow Pods; ask kubectl"} <= set(listed)
    assert any(line.startswith(f"db {unknown} ") for line in view("get", "endpoints", *own))
    assert f"Endpoints: {unknown}" in view("describe", "svc", "db", *own)
    assert unknown in view("describe", "ep", "db", *own)
    web = view("describe", "svc", "web", *own)
    assert f"Endpoints: {story.lab.pod('pod-1').address(4)}:8080" in "\n".join(web)
    assert not any(line.startswith("Annotations:") for line in web)
    assert "kproxy follows only the Node of this node; ask kubectl for the others" in view("get", "nodes")


def test_another_service_takes_over_an_address_and_a_node_port(story: ClusterStory) -> None:
    old, new = typed("NodePort"), {**typed("NodePort"), "metadata": {"name": "successor"}}
    story.apply(old, *slices(story.lab, ["pod-1"]), *slices(story.lab, ["pod-2"], name="successor"))
    story.converges()
    with story.burst():
        story.delete(old)
        story.apply(new)
    story.converges()
    assert served(story, "pod-2") == {"ClusterIP", "NodePort"}
    with story.burst():
        story.delete(new)
        story.apply(old)
    story.converges()
    assert served(story, "pod-1") == {"ClusterIP", "NodePort"}
