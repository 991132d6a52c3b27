"""Stories of a node that follows a real API server.

The lab's node reaches the server through a relay, so the network of this machine does not change. The tests
change objects with plain HTTP, in a separate namespace, and delete them afterwards. docs/cluster.md lists
the requirements.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from netns_lab.lab import Lab

from kproxy.sources.cluster.credentials import Credentials
from tests.apiserver.client import Answer, Client, path_of
from tests.apiserver.relay import Relay
from tests.apiserver.resources import BY_KIND
from tests.controlplane import Cluster, ControlPlane
from tests.ports import kept
from tests.stories.following import KINDS, PATIENCE, ClusterStory, Server
from tests.support import Manifest, Running, eventually
from tests.truth import Truth

FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class ProcessServer(Server):
    """Processes of the tests. `reconnect` is called after each restart."""

    def __init__(self, control_plane: ControlPlane, folder: Path, reconnect: Callable[[], None]) -> None:
        self._own, self._folder, self._reconnect = control_plane, folder, reconnect

    def restart(self) -> None:
        self._own.restart()
        self._reconnect()

    def upgrade(self) -> None:
        self._own.upgrade()
        self._reconnect()

    def compact(self) -> None:
        self._own.compact()
        self._reconnect()

    def backup(self) -> Path:
        return self._own.backup(self._folder / f"etcd-{uuid.uuid4().hex[:8]}")

    def restore(self, backup: Path | None) -> None:
        self._own.restore(backup)
        self._reconnect()

    def rotate(self, token: str) -> None:
        self._own.rotate(token)
        self._reconnect()

    def forbid(self) -> None:
        self._own.forbid()

    def allow(self) -> None:
        assert self._own.allow()


class RemoteStory(ClusterStory):
    """A story that changes objects with HTTP requests to an API server, in a separate namespace."""

    def __init__(self, lab: Lab, relayed: RelayedServer, running: Running, truth: Truth) -> None:
        super().__init__(lab, running, truth)
        self.network = relayed.relay
        self.own: ProcessServer | None = None
        self._client, self._relay = relayed.client, relayed.relay
        self._nodes: dict[str, Manifest] = {}
        self.namespace = f"kproxy-test-{uuid.uuid4().hex[:8]}"

    @property
    def server(self) -> Server:
        return self.own or super().server

    @property
    def owned(self) -> bool:
        return self.own is not None

    def apply(self, *manifests: Manifest) -> None:
        """Create or replace objects, or recreate them if a field is immutable. A status is written apart."""
        for manifest in map(self._mine, manifests):
            if manifest["kind"] == "Node":
                self._nodes[path_of(manifest)] = manifest
            there = self._client.get(path_of(manifest))
            made = self._create(manifest) if there.status == 404 else self._update(manifest, there)
            now = self._done(made).json
            if "status" in manifest:
                whole = {**manifest, **now, "status": manifest["status"]}
                self._done(self._client.update(whole, "/status"))

    def delete(self, *manifests: Manifest) -> None:
        """Delete objects with the names of these."""
        for manifest in map(self._mine, manifests):
            self._done(self._client.delete(manifest))

    def objects(self) -> list[Manifest]:
        """Return all objects of the kinds that a node follows, in all namespaces."""
        found = []
        for kind in ("Service", "EndpointSlice", "Node"):
            resource = BY_KIND[kind]
            listed = self._done(self._client.get(f"{resource.prefix}/{resource.plural}")).json
            found += [
                {**item, "apiVersion": resource.api_version, "kind": kind} for item in listed["items"] or ()
            ]
        return found

    def watched(self) -> None:
        """Wait until there is one connection for each watch, because the relay cannot see the watches."""
        eventually(lambda: self._relay.connections >= len(KINDS), self.running.logged, 2 * PATIENCE)

    def clean(self) -> None:
        """Delete the created objects. Without controllers, deletion of the namespace would keep them."""
        self._client.connection.close()  # in any state
        own = [made for made in self.objects() if made["metadata"].get("namespace") == self.namespace]
        for manifest in (*own, *self._nodes.values()):
            self._client.delete(manifest)
        self._client.delete(_namespace(self.namespace))

    def _mine(self, manifest: Manifest) -> Manifest:
        if not BY_KIND[manifest["kind"]].namespaced:
            return manifest
        return {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}

    def _create(self, manifest: Manifest) -> Answer:
        answer = self._client.create(manifest)
        if answer.status != 404:
            return answer
        self._done(self._client.create(_namespace(self.namespace)))  # it does not exist yet, or was lost
        return self._client.create(manifest)

    def _update(self, manifest: Manifest, found: Answer) -> Answer:
        there = self._done(found).json
        metadata = {**manifest["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}
        answer = self._client.update({**manifest, "metadata": metadata})
        if answer.status == 422:  # an immutable field
            self._done(self._client.delete(manifest))
            answer = self._client.create(manifest)
        return answer

    def _done(self, answer: Answer) -> Answer:
        assert answer.status in (200, 201, 202), answer.body.decode(errors="replace")
        return answer


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


class RelayedServer:
    """The server of a kubeconfig. Tests reach it with `client`, and node n1 at `url`."""

    def __init__(self, lab: Lab, kubeconfig: Path) -> None:
        credentials, node = Credentials(kubeconfig), lab.node("n1")
        endpoint, authorization = credentials.load(), credentials.authorization() or ""
        parts = urlsplit(endpoint.server)
        assert parts.hostname
        self.name = parts.hostname
        """The name in the server's certificate."""
        self.tls = endpoint.tls or None
        self.client = Client(
            endpoint.server, token=authorization.removeprefix("Bearer "), context=endpoint.tls or None
        )
        self.relay = Relay(
            self.name,
            parts.port or (443 if self.tls else 80),
            lambda host, port: node.inside(lambda: kept(host, port)),
        )
        self._scheme = parts.scheme

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.relay.port}"

    def __enter__(self) -> RelayedServer:
        self.relay.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.__exit__()
        self.relay.__exit__()


@contextmanager
def remote(
    lab: Lab,
    folder: Path,
    cluster: Cluster,
    *manifests: Manifest,
    flags: Sequence[str] = (),
    start: bool = True,
    cluster_cidr: bool = True,
    pod_cidrs: str | None = None,
) -> Iterator[RemoteStory]:
    """Run kproxy on node n1, following a real cluster that has these manifests."""
    node, own = lab.node("n1"), cluster.control_plane
    truth = Truth(node, pod_cidrs)
    try:
        with RelayedServer(lab, cluster.kubeconfig) as relayed:
            original, token = own.user(folder) if own else (cluster.kubeconfig, None)
            kubeconfig = _redirected(original, folder / "kubeconfig", relayed.url, relayed.name)
            running = Running(node, folder, ["--kubeconfig", str(kubeconfig), *flags], cluster_cidr)
            story = RemoteStory(lab, relayed, running, truth)
            if own and token:
                story.own, story.token = ProcessServer(own, folder, relayed.client.connection.close), token
            try:
                story.apply(*manifests)
                if start:
                    running.start()
                yield story
            finally:
                running.__exit__()
                story.clean()
    finally:
        truth.close()


def _redirected(kubeconfig: Path, copy: Path, server: str, name: str) -> Path:
    """Copy a kubeconfig with another URL of the server, whose certificate is still checked for `name`."""
    content: dict[str, Any] = yaml.safe_load(kubeconfig.read_text())
    for entry in content["clusters"]:
        entry["cluster"] = {"tls-server-name": name, **entry["cluster"], "server": server}
    for entry in (*content["clusters"], *content["users"]):
        for section in (entry.get("cluster"), entry.get("user")):
            for field in FILES:
                if section and section.get(field):
                    section[field] = str(kubeconfig.parent / section[field])
    copy.write_text(yaml.safe_dump(content))
    copy.chmod(0o600)
    return copy
