"""Stories of a node that follows a real API server.

The lab's node reaches it through a relay, so that nothing of this machine's network changes. What is done
there is done by plain HTTP, in a namespace of its own that goes afterwards. What it needs is in
docs/cluster.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import yaml
from netns_lab.lab import Lab

from kproxy.sources.cluster.credentials import Credentials
from tests.apiserver.client import Answer, Client, path_of
from tests.apiserver.listener import create_server
from tests.apiserver.relay import Fate, Relay
from tests.apiserver.resources import BY_KIND
from tests.controlplane import Cluster, ControlPlane
from tests.stories.following import KINDS, PATIENCE, Server, Told, Way
from tests.support import Manifest, Running, eventually
from tests.truth import Truth

FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class RelaysWay(Way):
    """The relay is the way."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def close(self) -> None:
        self._relay.close()

    def open(self) -> None:
        self._relay.open()

    def refuse(self) -> None:
        self._relay.refuse()

    def cut(self) -> None:
        self._relay.cut()

    def hang_up(self) -> None:
        self._relay.hang_up()

    def hold(self) -> None:
        self._relay.hold()

    def release(self) -> None:
        self._relay.release()

    def tear(self, after: int, times: int) -> None:
        self._relay.next(Fate(remaining=after), times)
        self.cut()

    def slow(self, times: int) -> None:
        self._relay.next(Fate(piece=7, pause=0.001), times)
        self.cut()


class OwnServer(Server):
    """The tests' own processes; `reconnect` is called when they were started again."""

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


class Remote(Told):
    """What is asked of an API server by HTTP, in a namespace of its own."""

    def __init__(self, lab: Lab, reached: Reached, running: Running, truth: Truth) -> None:
        super().__init__(lab, running, truth)
        self.way = RelaysWay(reached.relay)
        self.own: OwnServer | None = None
        self._client, self._relay = reached.client, reached.relay
        self._nodes: dict[str, Manifest] = {}
        self.namespace = f"kproxy-test-{uuid.uuid4().hex[:8]}"

    @property
    def server(self) -> Server:
        return self.own or super().server

    @property
    def owned(self) -> bool:
        return self.own is not None

    def apply(self, *manifests: Manifest) -> None:
        """Create or replace; what cannot be changed in place is made anew. A status is written apart."""
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
        """What has the names of these."""
        for manifest in map(self._mine, manifests):
            self._done(self._client.delete(manifest))

    def objects(self) -> list[Manifest]:
        """All of the kinds that a node follows, of whatever namespace."""
        found = []
        for kind in ("Service", "EndpointSlice", "Node"):
            resource = BY_KIND[kind]
            listed = self._done(self._client.get(f"{resource.prefix}/{resource.plural}")).json
            found += [
                {**item, "apiVersion": resource.api_version, "kind": kind} for item in listed["items"] or ()
            ]
        return found

    def watched(self) -> None:
        """As far as the relay can tell: each watch has a connection."""
        eventually(lambda: self._relay.connections >= len(KINDS), self.running.logged, 2 * PATIENCE)

    def clean(self) -> None:
        """Delete all that was made; without controllers, a namespace's end would leave it."""
        self._client.connection.close()  # whatever state it is in
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
        self._done(self._client.create(_namespace(self.namespace)))  # the first, or it was lost
        return self._client.create(manifest)

    def _update(self, manifest: Manifest, found: Answer) -> Answer:
        there = self._done(found).json
        metadata = {**manifest["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}
        answer = self._client.update({**manifest, "metadata": metadata})
        if answer.status == 422:  # a field that may not change
            self._done(self._client.delete(manifest))
            answer = self._client.create(manifest)
        return answer

    def _done(self, answer: Answer) -> Answer:
        assert answer.status in (200, 201, 202), answer.body.decode(errors="replace")
        return answer


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


class Reached:
    """The server of a kubeconfig: from here by `client`, and from node n1 at the URL `server`."""

    def __init__(self, lab: Lab, kubeconfig: Path) -> None:
        credentials, node = Credentials(kubeconfig), lab.node("n1")
        endpoint, authorization = credentials.load(), credentials.authorization() or ""
        parts = urlsplit(endpoint.server)
        assert parts.hostname
        self.name = parts.hostname
        """What its certificate is for."""
        self.tls = endpoint.tls or None
        self.client = Client(
            endpoint.server, token=authorization.removeprefix("Bearer "), context=endpoint.tls or None
        )
        self.relay = Relay(
            self.name,
            parts.port or (443 if self.tls else 80),
            lambda host, port: node.inside(lambda: create_server(host, port)),
        )
        self._scheme = parts.scheme

    @property
    def server(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.relay.port}"

    def __enter__(self) -> Reached:
        self.relay.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.__exit__(kind, error, trace)
        self.relay.__exit__(kind, error, trace)


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
) -> Iterator[Remote]:
    """kproxy run on node n1, of a real cluster that has these manifests."""
    node, own = lab.node("n1"), cluster.control_plane
    truth = Truth(node, pod_cidrs)
    try:
        with Reached(lab, cluster.kubeconfig) as reached:
            given, token = own.user(folder) if own else (cluster.kubeconfig, None)
            kubeconfig = _led_through(given, folder / "kubeconfig", reached.server, reached.name)
            running = Running(node, folder, ["--kubeconfig", str(kubeconfig), *flags], cluster_cidr)
            told = Remote(lab, reached, running, truth)
            if own and token:
                told.own, told.token = OwnServer(own, folder, reached.client.connection.close), token
            try:
                told.apply(*manifests)
                if start:
                    running.start()
                yield told
            finally:
                running.__exit__()
                told.clean()
    finally:
        truth.close()


def _led_through(kubeconfig: Path, copy: Path, server: str, name: str) -> Path:
    """The kubeconfig with another address of the server, whose certificate is still for `name`."""
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
