"""What deploy/daemonset.yaml asks of a cluster, and whether one gives it: with a real API server only.

kproxy runs in the DaemonSet's container as its ServiceAccount, with a token such as a kubelet asks for.
All that it does has to be allowed by the ClusterRole, and without any single right it has to say so.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import many
from netns_lab.topology import POD_NETWORK

from tests.apiserver.client import Answer
from tests.controlplane import Cluster
from tests.stories.deployed import Deployed, objects, template, without_config_map, write_config_map
from tests.stories.remote import Reached
from tests.support import SERVICE_IP, Manifest, eventually, service, slices

pytestmark = pytest.mark.lab

PODS = ",".join(POD_NETWORK.values())
PLURALS = {
    "Namespace": "namespaces",
    "ServiceAccount": "serviceaccounts",
    "Secret": "secrets",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "DaemonSet": "daemonsets",
    "Pod": "pods",
    "Service": "services",
    "EndpointSlice": "endpointslices",
}
STRICT = {"fieldValidation": "Strict"}


def path_of(manifest: Manifest) -> str:
    """Of the collection that it belongs to."""
    version, namespace = manifest["apiVersion"], manifest["metadata"].get("namespace")
    below = f"/namespaces/{namespace}" if namespace else ""
    return f"/{'apis' if '/' in version else 'api'}/{version}{below}/{PLURALS[manifest['kind']]}"


class Account:
    """The manifest's ServiceAccount, ClusterRole and binding by other names, in a namespace of their own."""

    def __init__(self, way: Reached) -> None:
        self.way = way
        self.namespace = f"kproxy-test-{uuid.uuid4().hex[:8]}"
        self._made: list[Manifest] = []
        found = objects()
        self.role = {**found["ClusterRole"], "metadata": {"name": self.namespace}}
        subjects = [
            {**subject, "namespace": self.namespace} for subject in found["ClusterRoleBinding"]["subjects"]
        ]
        reference = {**found["ClusterRoleBinding"]["roleRef"], "name": self.namespace}
        binding = {**found["ClusterRoleBinding"], "metadata": self.role["metadata"], "roleRef": reference}
        self.make({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        self.make(self.within(found["ServiceAccount"]))
        self.make(self.role)
        self.make({**binding, "subjects": subjects})

    def within(self, manifest: Manifest) -> Manifest:
        return {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}

    def make(self, manifest: Manifest) -> None:
        self._made.append(manifest)
        self._ask("POST", path_of(manifest), manifest, **STRICT)

    def delete(self, manifest: Manifest) -> None:
        self._ask("DELETE", f"{path_of(manifest)}/{manifest['metadata']['name']}")

    def clean(self) -> None:
        for made in reversed(self._made):
            self.way.client.ask("DELETE", f"{path_of(made)}/{made['metadata']['name']}")

    def allow(self, rules: list[Manifest]) -> None:
        """The role allows this from now on."""
        self._ask("PUT", f"{path_of(self.role)}/{self.namespace}", {**self.role, "rules": rules})

    def token(self, name: str) -> str:
        """One that is bound to a Secret of this name, as a kubelet's is to a pod: it ends with it."""
        secret = self.within({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
        self.make(secret)
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name}
        account = f"{path_of(self.within(objects()['ServiceAccount']))}/kproxy/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        answer = self._ask("POST", account, {**request, "spec": {"boundObjectRef": bound}})
        return str(answer.json["status"]["token"])

    def change(self, manifest: Manifest) -> None:
        """Write over it."""
        mine = self.within(manifest)
        path = f"{path_of(mine)}/{mine['metadata']['name']}"
        there = self._ask("GET", path).json["metadata"]["resourceVersion"]
        self._ask("PUT", path, {**mine, "metadata": {**mine["metadata"], "resourceVersion": there}})

    def refused(self, token: str) -> bool:
        """Whether the server does not know it any more."""
        headers = {**self.way.client.headers, "Authorization": f"Bearer {token}"}
        connection = self.way.client.connection
        connection.request("GET", "/api/v1/services?limit=1", headers=headers)
        with connection.getresponse() as response:
            response.read()
            return response.status == 401

    def _ask(self, method: str, path: str, body: Any = None, **query: str) -> Answer:
        answer = self.way.client.ask(method, path, body, **query)
        assert answer.status in (200, 201, 202), answer.body.decode()
        assert "warning" not in answer.headers
        return answer


@pytest.fixture
def account(cluster: Cluster | None, lab: Lab) -> Iterator[Account]:
    if not cluster:
        pytest.skip("needs a real API server, which has rights to give")
    with Reached(lab, cluster.kubeconfig) as way:
        account = Account(way)
        try:
            yield account
        finally:
            account.clean()


@pytest.fixture
def running(lab: Lab, tmp_path: Path, account: Account) -> Iterator[Deployed]:
    """The container beside it, not started; of the cluster's objects, a service and its slices are ours."""
    for manifest in (service(), *slices(lab, ["pod-1"])):
        account.make(account.within(manifest))
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(account.token("first"))
    assert isinstance(account.way.tls, ssl.SSLContext), "a server without TLS has no accounts"
    authorities = account.way.tls.get_ca_certs(binary_form=True)
    (folder / "ca.crt").write_text("".join(map(ssl.DER_cert_to_PEM_cert, authorities)))
    write_config_map(tmp_path / "config", account.way.server, PODS, account.way.name)
    running = Deployed(lab.node("n1"), tmp_path, folder, tmp_path / "config")
    try:
        yield running
    finally:
        running.__exit__()


def answering(lab: Lab) -> set[str]:
    return set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 10))


def test_a_server_takes_the_manifest_as_it_is(account: Account) -> None:
    """All of it strictly, and a pod of the DaemonSet, of which a controller would only find out later."""
    client = account.way.client
    for manifest in objects().values():
        answer = client.ask(
            "PATCH",
            f"{path_of(manifest)}/{manifest['metadata']['name']}",
            manifest,
            content_type="application/apply-patch+yaml",
            **{**STRICT, "dryRun": "All", "fieldManager": "test", "force": "true"},
        )
        assert answer.status in (200, 201), answer.body.decode()
        assert "warning" not in answer.headers
    pod = account.within({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "it"}, "spec": template()})
    answer = client.ask("POST", path_of(pod), pod, **STRICT, dryRun="All")
    assert answer.status == 201, answer.body.decode()
    assert "warning" not in answer.headers


def rights() -> list[tuple[str, str]]:
    """Each that the role gives: (resource, verb)."""
    rules = objects()["ClusterRole"]["rules"]
    return [(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]]


def without(resource: str, verb: str) -> list[Manifest]:
    """The role's rules, each for one resource, without one right."""
    return [
        {**rule, "resources": [each], "verbs": [v for v in rule["verbs"] if (each, v) != (resource, verb)]}
        for rule in objects()["ClusterRole"]["rules"]
        for each in rule["resources"]
    ]


def test_the_role_has_all_it_needs_and_no_more(lab: Lab, account: Account, running: Deployed) -> None:
    running.start()
    assert answering(lab) == {"pod-1"}
    assert "WARNING" not in running.logged()
    running.stop()
    name = f"system:serviceaccount:{account.namespace}:kproxy"
    for resource, verb in rights():
        account.allow(without(resource, verb))
        running.log.write_text("")
        running.start(wait=False)
        refused = f'User "{name}" cannot {verb} resource "{resource}"'
        eventually(lambda refused=refused: refused in running.logged(), running.logged)  # type: ignore[misc]
        running.stop()


@pytest.mark.parametrize("told", [True, False], ids=["kubeconfig", "in-cluster"])
def test_a_token_ends_and_another_one_is_there(
    lab: Lab, tmp_path: Path, account: Account, running: Deployed, told: bool
) -> None:
    if not told:
        if account.way.name != "127.0.0.1":
            pytest.skip("in a cluster, the server's certificate has to be for the relay's address")
        port = str(account.way.relay.port)
        environment = {"KUBERNETES_SERVICE_HOST": account.way.name, "KUBERNETES_SERVICE_PORT": port}
        without_config_map(running, PODS, environment)
    running.start()
    assert answering(lab) == {"pod-1"}
    first = (tmp_path / "account" / "token").read_text()
    new = tmp_path / "account" / ".token"
    new.write_text(account.token("second"))
    new.rename(tmp_path / "account" / "token")
    account.delete(account.within({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "first"}}))
    # A server believes for ten seconds what it has seen of a token.
    eventually(lambda: account.refused(first), patience=20)
    account.way.relay.cut()
    account.change(slices(lab, ["pod-2"])[0])
    eventually(lambda: answering(lab) == {"pod-2"}, running.logged)
    assert "WARNING" not in running.logged()
