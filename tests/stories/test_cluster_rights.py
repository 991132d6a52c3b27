"""The rights in deploy/daemonset.yaml, tested with a real API server only.

kproxy runs in the DaemonSet's container as its ServiceAccount, with a token like a kubelet's. The ClusterRole
must allow everything that kproxy does. If any right is missing, kproxy must report it.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import many
from netns_lab.topology import POD_NETWORK

from tests.apiserver.client import Answer
from tests.apiserver.objects import node
from tests.controlplane import Cluster
from tests.stories.deployed import Deployed, objects, template, without_config_map, write_config_map
from tests.stories.remote import RelayedServer
from tests.support import SERVICE_IP, Manifest, eventually, service, slices

pytestmark = pytest.mark.lab

PODS = ",".join(POD_NETWORK.values())
PLURALS = {
    "Namespace": "namespaces",
    "Node": "nodes",
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
    """Return the path of the collection of an object."""
    version, namespace = manifest["apiVersion"], manifest["metadata"].get("namespace")
    below = f"/namespaces/{namespace}" if namespace else ""
    return f"/{'apis' if '/' in version else 'api'}/{version}{below}/{PLURALS[manifest['kind']]}"


class Account:
    """The manifest's ServiceAccount, ClusterRole and binding with other names, in a separate namespace."""

    def __init__(self, server: RelayedServer) -> None:
        self.server = server
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
            self.server.client.ask("DELETE", f"{path_of(made)}/{made['metadata']['name']}")

    def allow(self, rules: list[Manifest]) -> None:
        """Replace the rules of the role."""
        self._ask("PUT", f"{path_of(self.role)}/{self.namespace}", {**self.role, "rules": rules})

    def token(self, name: str) -> str:
        """Return a token bound to a Secret of this name. Like a kubelet's bound to a pod, it ends with it."""
        secret = self.within({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
        self.make(secret)
        bound = {"apiVersion": "v1", "kind": "Secret", "name": name}
        account = f"{path_of(self.within(objects()['ServiceAccount']))}/kproxy/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        answer = self._ask("POST", account, {**request, "spec": {"boundObjectRef": bound}})
        return str(answer.json["status"]["token"])

    def change(self, manifest: Manifest) -> None:
        """Replace an object."""
        mine = self.within(manifest)
        path = f"{path_of(mine)}/{mine['metadata']['name']}"
        there = self._ask("GET", path).json["metadata"]["resourceVersion"]
        self._ask("PUT", path, {**mine, "metadata": {**mine["metadata"], "resourceVersion": there}})

    def refused(self, token: str) -> bool:
        """Whether the server does not accept a token any more."""
        headers = {**self.server.client.headers, "Authorization": f"Bearer {token}"}
        connection = self.server.client.connection
        connection.request("GET", "/api/v1/services?limit=1", headers=headers)
        with connection.getresponse() as response:
            response.read()
            return response.status == 401

    def _ask(self, method: str, path: str, body: Any = None, **query: str) -> Answer:
        answer = self.server.client.ask(method, path, body, **query)
        assert answer.status in (200, 201, 202), answer.body.decode()
        assert "warning" not in answer.headers
        return answer


@pytest.fixture
def account(cluster: Cluster | None, lab: Lab) -> Iterator[Account]:
    if not cluster:
        pytest.skip("needs a real API server with RBAC")
    with RelayedServer(lab, cluster.kubeconfig) as server:
        account = Account(server)
        try:
            yield account
        finally:
            account.clean()


@pytest.fixture
def running(lab: Lab, tmp_path: Path, account: Account) -> Iterator[Deployed]:
    """The container, not started. The cluster contains its Node, and a Service with its slices."""
    account.make(node(lab.node("n1").name))
    for manifest in (service(), *slices(lab, ["pod-1"])):
        account.make(account.within(manifest))
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(account.token("first"))
    assert isinstance(account.server.tls, ssl.SSLContext), "a server without TLS has no accounts"
    authorities = account.server.tls.get_ca_certs(binary_form=True)
    (folder / "ca.crt").write_text("".join(map(ssl.DER_cert_to_PEM_cert, authorities)))
    write_config_map(tmp_path / "config", account.server.url, PODS, account.server.name)
    running = Deployed(lab.node("n1"), tmp_path, folder, tmp_path / "config")
    try:
        yield running
    finally:
        running.__exit__()


def answering(lab: Lab) -> set[str]:
    return set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 10))


def test_the_server_accepts_the_manifest(account: Account) -> None:
    """Strict validation of all objects, and of a pod of the DaemonSet, which a controller would create."""
    client = account.server.client
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
    """Return each right of the role as (resource, verb)."""
    rules = objects()["ClusterRole"]["rules"]
    return [(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]]


def without(resource: str, verb: str) -> list[Manifest]:
    """Return the role's rules, one for each resource, without one right."""
    return [
        {**rule, "resources": [each], "verbs": [v for v in rule["verbs"] if (each, v) != (resource, verb)]}
        for rule in objects()["ClusterRole"]["rules"]
        for each in rule["resources"]
    ]


def _says(running: Deployed, *texts: str) -> bool:
    return any(text in running.logged() for text in texts)


def test_the_role_has_exactly_the_needed_rights(lab: Lab, account: Account, running: Deployed) -> None:
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
        eventually(partial(_says, running, refused, "kproxy is ready"), running.logged)
        if not _says(running, refused):  # a streamed list needs no right to list, unlike what follows a break
            account.server.relay.cut()
        eventually(partial(_says, running, refused), running.logged)
        running.stop()


@pytest.mark.parametrize("configured", [True, False], ids=["kubeconfig", "in-cluster"])
def test_a_new_token_is_used_when_the_old_one_ends(
    lab: Lab, tmp_path: Path, account: Account, running: Deployed, configured: bool
) -> None:
    if not configured:
        if account.server.name != "127.0.0.1":
            pytest.skip("in a cluster, the server's certificate must be valid for the relay's address")
        port = str(account.server.relay.port)
        environment = {"KUBERNETES_SERVICE_HOST": account.server.name, "KUBERNETES_SERVICE_PORT": port}
        without_config_map(running, PODS, environment)
    running.start()
    assert answering(lab) == {"pod-1"}
    first = (tmp_path / "account" / "token").read_text()
    new = tmp_path / "account" / ".token"
    new.write_text(account.token("second"))
    new.rename(tmp_path / "account" / "token")
    account.delete(account.within({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "first"}}))
    # A server caches its decision about a token for ten seconds.
    eventually(lambda: account.refused(first), patience=20)
    account.server.relay.cut()
    account.change(slices(lab, ["pod-2"])[0])
    eventually(lambda: answering(lab) == {"pod-2"}, running.logged)
    assert "WARNING" not in running.logged()
