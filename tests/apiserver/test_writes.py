"""Writes through HTTP. For the double or a real server."""

from __future__ import annotations

from tests.apiserver.client import path_of
from tests.apiserver.own import Own, revision_of

CONFLICT = "the object has been modified; please apply your changes to the latest version and try again"


def test_create(own: Own) -> None:
    answer = own.client.create(own.service())
    metadata = answer.json["metadata"]
    assert (answer.status, answer.json["kind"]) == (201, "Service")
    assert (metadata["namespace"], metadata["resourceVersion"].isdecimal()) == (own.namespace, True)
    assert metadata["uid"]
    assert metadata["creationTimestamp"]
    answer = own.client.create(own.service())
    assert (answer.status, answer.json["reason"]) == (409, "AlreadyExists")
    assert answer.json["message"] == 'services "web" already exists'
    own.delete(own.service())


def test_an_update_keeps_the_uid(own: Own) -> None:
    (before,) = own.create(own.service())
    after = own.update(own.service(port=81))
    assert after["spec"]["ports"][0]["port"] == 81
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert revision_of(after) > revision_of(before)


def test_an_update_of_an_old_revision_is_a_conflict(own: Own) -> None:
    (old,) = own.create(own.slice())
    own.update(own.slice(labels={"a": "1"}))
    answer = own.client.update(old)
    assert (answer.status, answer.json["reason"]) == (409, "Conflict")
    name = "endpointslices.discovery.k8s.io"
    assert answer.json["message"] == f'Operation cannot be fulfilled on {name} "web-1": {CONFLICT}'
    assert answer.json["details"] == {
        "name": "web-1",
        "group": "discovery.k8s.io",
        "kind": "endpointslices",
    }


def test_a_patch_of_an_old_revision_is_a_conflict(own: Own) -> None:
    (old,) = own.create(own.service())
    own.update(own.service(port=81))
    answer = own.client.patch(own.service(), {"metadata": {"resourceVersion": str(revision_of(old))}})
    assert (answer.status, answer.json["reason"]) == (409, "Conflict")


def test_a_missing_object_cannot_be_changed(own: Own) -> None:
    absent = own.slice()
    answers = [own.client.update(absent), own.client.patch(absent, {}), own.client.delete(absent)]
    assert [answer.status for answer in answers] == [404, 404, 404]
    assert answers[0].json["message"] == 'endpointslices.discovery.k8s.io "web-1" not found'
    assert own.client.patch(own.service(), {}).status == 404


def test_an_update_creates_a_missing_service(own: Own) -> None:
    answer = own.client.update(own.service())
    assert (answer.status, answer.json["kind"]) == (201, "Service")
    own.delete(own.service())


def test_merge_patch(own: Own) -> None:
    own.create(own.service(labels={"a": "1", "b": "2"}))
    answer = own.client.patch(
        own.service(), {"metadata": {"labels": {"a": None, "c": "3"}}, "spec": {"type": "NodePort"}}
    )
    assert answer.json["metadata"]["labels"] == {"b": "2", "c": "3"}
    spec = answer.json["spec"]
    assert (spec["type"], spec["ports"][0]["port"]) == ("NodePort", 80)
    assert own.client.ask("PATCH", path_of(own.service()), {}).status == 415


def test_status_is_written_only_through_its_subresource(own: Own) -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}
    balanced = own.service()
    balanced["spec"]["type"] = "LoadBalancer"
    (created,) = own.create({**balanced, "status": status})
    assert "ingress" not in created.get("status", {}).get("loadBalancer", {})
    balanced["spec"]["ports"][0]["port"] = 81
    updated = own.update({**balanced, "status": status})
    assert "ingress" not in updated.get("status", {}).get("loadBalancer", {})
    patch = {"status": status, "spec": {"sessionAffinity": "ClientIP"}}
    patched = own.client.patch(balanced, patch, "/status").json
    assert (patched["status"], patched["spec"]) == (status, updated["spec"])
    emptied = own.client.update({**updated, "metadata": balanced["metadata"]}, "/status").json
    assert "ingress" not in emptied.get("status", {}).get("loadBalancer", {})
    assert emptied["spec"] == updated["spec"]


def test_a_deletion_returns_the_service_or_a_status(own: Own) -> None:
    service, slice_ = own.create(own.service(), own.slice())
    deleted = own.delete(service)
    assert (deleted["kind"], deleted["metadata"]["name"]) == ("Service", "web")
    assert revision_of(deleted) > revision_of(service)
    status = own.delete(slice_)
    assert (status["kind"], status["status"]) == ("Status", "Success")
    assert status["details"] == {
        "name": "web-1",
        "group": "discovery.k8s.io",
        "kind": "endpointslices",
        "uid": slice_["metadata"]["uid"],
    }
    assert own.names() == []
    assert own.client.delete(service).status == 404


def test_an_object_without_namespace(own: Own) -> None:
    found = own.client.get(f"/api/v1/namespaces/{own.namespace}").json
    assert (found["kind"], found["metadata"].get("namespace")) == ("Namespace", None)


def test_invalid_requests(own: Own) -> None:
    own.create(own.service())
    assert own.client.ask("POST", own.services, [1]).status == 400
    nameless = own.slice("")
    assert own.client.ask("POST", own.slices, nameless).status == 422
    elsewhere = {**own.service(), "metadata": {"name": "web", "namespace": "other"}}
    assert own.client.ask("POST", own.services, elsewhere).status == 400
    path = path_of(own.service())
    assert own.client.ask("PUT", path, own.service("other")).status == 400
    assert own.client.ask("PUT", f"{path}/scale", own.service()).status == 404
    for method, where in (("PUT", own.services), ("POST", path)):
        answer = own.client.ask(method, where, own.service())
        assert (answer.status, answer.json["reason"]) == (405, "MethodNotAllowed")
