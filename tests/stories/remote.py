"""The stories about clusters beside an API server that is no part of the test: a real one.

`make test-cluster` names it by a kubeconfig. The lab's node reaches it through a relay, and all that is
done there is done by plain HTTP, in a namespace of its own that goes afterwards. What it needs is in
docs/cluster.md.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import yaml
from netns_lab.lab import Lab

from kproxy.sources.cluster.credentials import Credentials
from tests.apiserver.client import Answer, Client, path_of
from tests.apiserver.resources import BY_KIND
from tests.relay import Relay
from tests.stories.following import REAL, Told, following
from tests.support import Manifest, Running
from tests.truth import Truth

KINDS = ("Service", "EndpointSlice", "Node")
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class Remote(Told):
    """What is asked of an API server by HTTP, in a namespace of its own."""

    def __init__(self, lab: Lab, client: Client, running: Running, truth: Truth) -> None:
        super().__init__(lab, running, truth)
        self._client = client
        self._made: dict[str, Manifest] = {}
        self.namespace = f"kproxy-test-{uuid.uuid4().hex[:8]}"
        self._done(client.create(_namespace(self.namespace)))

    def apply(self, *manifests: Manifest) -> None:
        """Create or replace; what cannot be changed in place is made anew. A status is written apart."""
        for manifest in map(self._mine, manifests):
            self._made[path_of(manifest)] = manifest
            there = self._client.get(path_of(manifest))
            if there.status == 404:
                self._done(self._client.create(manifest))
            else:
                self._update(manifest, self._done(there).json)
            if "status" in manifest:
                now = self._done(self._client.get(path_of(manifest))).json
                whole = {**manifest, **now, "status": manifest["status"]}
                self._done(self._client.update(whole, "/status"))

    def delete(self, *manifests: Manifest) -> None:
        """What has the names of these."""
        for manifest in map(self._mine, manifests):
            self._made.pop(path_of(manifest), None)
            self._done(self._client.delete(manifest))

    def objects(self) -> list[Manifest]:
        """All of the kinds that a node follows, of whatever namespace."""
        found = []
        for kind in KINDS:
            resource = BY_KIND[kind]
            listed = self._done(self._client.get(f"{resource.prefix}/{resource.plural}")).json
            found += [
                {**item, "apiVersion": resource.api_version, "kind": kind} for item in listed["items"] or ()
            ]
        return found

    def clean(self) -> None:
        """Delete all that was made; without controllers, a namespace's end would leave it."""
        for manifest in list(self._made.values()):
            self._client.delete(manifest)
        self._client.delete(_namespace(self.namespace))

    def _mine(self, manifest: Manifest) -> Manifest:
        return {**manifest, "metadata": {**manifest["metadata"], "namespace": self.namespace}}

    def _update(self, manifest: Manifest, there: Manifest) -> None:
        metadata = {**manifest["metadata"], "resourceVersion": there["metadata"]["resourceVersion"]}
        answer = self._client.update({**manifest, "metadata": metadata})
        if answer.status == 422:  # a field that may not change
            self._done(self._client.delete(manifest))
            answer = self._client.create(manifest)
        self._done(answer)

    def _done(self, answer: Answer) -> Answer:
        assert answer.status in (200, 201, 202), answer.body.decode(errors="replace")
        return answer


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


class Way:
    """To the server of a kubeconfig: from here as `client`, and from node n1 at the URL `server`."""

    def __init__(self, lab: Lab, kubeconfig: Path) -> None:
        credentials = Credentials(kubeconfig)
        endpoint, authorization = credentials.load(), credentials.authorization() or ""
        parts = urlsplit(endpoint.server)
        assert parts.hostname
        self.name = parts.hostname
        """What its certificate is for."""
        self.tls = endpoint.tls or None
        self.client = Client(
            endpoint.server, token=authorization.removeprefix("Bearer "), context=endpoint.tls or None
        )
        self.relay = Relay(lab.node("n1"), self.name, parts.port or (443 if self.tls else 80))
        self.server = f"{parts.scheme}://127.0.0.1:{self.relay.port}"

    def __enter__(self) -> Way:
        self.relay.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.__exit__(kind, error, trace)
        self.relay.__exit__(kind, error, trace)


@contextmanager
def remote(lab: Lab, folder: Path, kubeconfig: Path, flags: Sequence[str] = ()) -> Iterator[Remote]:
    """kproxy run on node n1, of the cluster that a kubeconfig names."""
    truth = Truth(lab.node("n1"))
    try:
        with Way(lab, kubeconfig) as way:
            own = _led_through(kubeconfig, folder / "kubeconfig", way.server, way.name)
            with Running(lab.node("n1"), folder, ["--kubeconfig", str(own), *flags]) as running:
                told = Remote(lab, way.client, running, truth)
                try:
                    yield told
                finally:
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


@contextmanager
def anywhere(lab: Lab, folder: Path) -> Iterator[Told]:
    """A node that follows the real API server, if one is named, and else the double."""
    if kubeconfig := os.environ.get(REAL):
        with remote(lab, folder, Path(kubeconfig)) as told:
            yield told
    else:
        with following(lab, folder) as double:
            yield double
