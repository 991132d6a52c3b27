"""A simple HTTP client that gives access to everything: status, headers, each line as it arrives.

It does not depend on the test double, so it can also be used with a real server.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from tests.apiserver.resources import BY_KIND, Manifest


class Answer(NamedTuple):
    """A complete answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def names(self) -> list[str]:
        """The names of the items of a list."""
        return [item["metadata"]["name"] for item in self.json["items"]]

    @property
    def revision(self) -> str:
        return str(self.json["metadata"]["resourceVersion"])


class Client:
    """One connection to the server at `url`; a context manager."""

    def __init__(self, url: str, *, token: str = "", context: Any = None, timeout: float = 60) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self.connection = (
            http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=context)
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        )
        self.headers = {"User-Agent": "test", **({"Authorization": f"Bearer {token}"} if token else {})}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        **query: Any,
    ) -> http.client.HTTPResponse:
        """Send a request. Returns the response, whose body is not read yet."""
        target = f"{quote(path)}?{urlencode(query)}" if query else path
        headers = {**self.headers, **({"Content-Type": content_type} if body is not None else {})}
        content = json.dumps(body) if body is not None else None
        self.connection.request(method, target, content, headers)
        return self.connection.getresponse()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """Send a request. Returns the complete answer."""
        response = self.open(method, path, body, **options)
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read())

    def get(self, path: str, **query: Any) -> Answer:
        """GET."""
        return self.ask("GET", path, **query)

    @contextmanager
    def watch(self, path: str, revision: str = "", **query: Any) -> Iterator[Iterator[Any]]:
        """Yield the events of a watch as they arrive. The iterator ends when the server ends the watch."""
        version = {"resourceVersion": revision} if revision else {}
        response = self.open("GET", path, watch="1", **version, **query)
        assert response.status == 200, response.read()
        try:
            yield (json.loads(line) for line in response)
        finally:
            response.close()
            self.connection.close()

    # Writes

    def create(self, manifest: Manifest) -> Answer:
        return self.ask("POST", collection(manifest), manifest)

    def update(self, manifest: Manifest, subresource: str = "") -> Answer:
        return self.ask("PUT", path_of(manifest) + subresource, manifest)

    def patch(self, manifest: Manifest, patch: Manifest, subresource: str = "") -> Answer:
        content_type = "application/merge-patch+json"
        return self.ask("PATCH", path_of(manifest) + subresource, patch, content_type=content_type)

    def delete(self, manifest: Manifest) -> Answer:
        return self.ask("DELETE", path_of(manifest))


def collection(manifest: Manifest) -> str:
    """Return the path of the collection that contains an object."""
    resource = BY_KIND[manifest["kind"]]
    namespace = manifest["metadata"].get("namespace", "default")
    below = f"/namespaces/{namespace}" if resource.namespaced else ""
    return f"{resource.prefix}{below}/{resource.plural}"


def path_of(manifest: Manifest) -> str:
    """Return the path of an object."""
    return f"{collection(manifest)}/{manifest['metadata']['name']}"
