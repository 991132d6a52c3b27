"""Writes by HTTP, as they are done to a real server."""

from __future__ import annotations

from tests.apiserver import ApiServer
from tests.apiserver.client import Client, path_of
from tests.apiserver.objects import SERVICES, node, service


def test_create(api: ApiServer, client: Client) -> None:
    answer = client.create(service("web", "shop"))
    metadata = answer.json["metadata"]
    assert (answer.status, answer.json["kind"]) == (201, "Service")
    assert metadata["resourceVersion"] == str(api.store.revision)
    assert metadata["uid"]
    assert metadata["creationTimestamp"]
    answer = client.create(service("web", "shop"))
    assert (answer.status, answer.json["reason"]) == (409, "AlreadyExists")


def test_update_keeps_what_the_server_has_given(client: Client) -> None:
    before = client.create(service()).json["metadata"]
    after = client.update(service(port=81)).json
    assert after["spec"]["ports"] == [{"port": 81}]
    assert after["metadata"]["uid"] == before["uid"]
    assert after["metadata"]["resourceVersion"] > before["resourceVersion"]


def test_an_update_of_something_older_is_a_conflict(client: Client) -> None:
    old = client.create(service()).json
    client.update(service(port=81))
    answer = client.update(old)
    assert (answer.status, answer.json["reason"]) == (409, "Conflict")


def test_what_is_not_there_cannot_be_changed(client: Client) -> None:
    answers = [client.update(service()), client.patch(service(), {}), client.delete(service())]
    assert [answer.status for answer in answers] == [404, 404, 404]


def test_merge_patch(client: Client) -> None:
    client.create(service(labels={"a": "1", "b": "2"}))
    answer = client.patch(
        service(), {"metadata": {"labels": {"a": None, "c": "3"}}, "spec": {"type": "NodePort"}}
    )
    assert answer.json["metadata"]["labels"] == {"b": "2", "c": "3"}
    assert answer.json["spec"] == {"ports": [{"port": 80}], "type": "NodePort"}
    assert client.ask("PATCH", path_of(service()), {}).status == 415


def test_status_is_written_by_its_subresource_alone(client: Client) -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    created = client.create({**service(), "status": status}).json
    assert "status" not in created
    assert "status" not in client.update({**service(port=81), "status": status}).json
    answer = client.patch(service(), {"status": status, "spec": {"type": "NodePort"}}, "/status").json
    assert (answer["status"], answer["spec"]) == (status, {"ports": [{"port": 81}]})
    answer = client.update({**service(), "status": {}}, "/status").json
    assert (answer["status"], answer["spec"]) == ({}, {"ports": [{"port": 81}]})


def test_delete(client: Client) -> None:
    client.create(service())
    assert client.delete(service()).json["status"] == "Success"
    assert client.get(SERVICES).names == []
    assert client.delete(service()).status == 404


def test_what_has_no_namespace(client: Client) -> None:
    client.create(node("n1"))
    assert client.get("/api/v1/nodes/n1").json["metadata"].get("namespace") is None


def test_rubbish(client: Client) -> None:
    path = "/api/v1/namespaces/default/services"
    assert client.ask("POST", path, [1]).status == 400
    assert client.ask("POST", path, {"metadata": {}}).status == 422
    assert client.ask("POST", path, service("web", "other")).status == 400
    assert client.ask("DELETE", path).status == 405
    assert client.ask("PUT", path_of(service()) + "/scale", service()).status == 404
