"""The server, with the methods that tests call.

    with ApiServer() as api:
        api.create(service())
        ... a client of api.url ...
        api.wait(lambda: api.requests(verb="watch", resource="services"))
        api.watches.reset("services")

All methods may be called from any thread except the server's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any, NamedTuple, TypeVar

import msgspec

from tests.apiserver import faults, protobuf
from tests.apiserver.access import Access
from tests.apiserver.certificates import Authority
from tests.apiserver.events import event_line
from tests.apiserver.faults import Faults
from tests.apiserver.http import Connection, Request
from tests.apiserver.listener import Bind, Listener, server_context
from tests.apiserver.reads import get, list_objects
from tests.apiserver.resources import BY_KIND, Manifest, Resource, Target, discovery, target_of
from tests.apiserver.status import ApiError, no_such_path
from tests.apiserver.store import Snapshot, Store, Stored
from tests.apiserver.watches import Watches
from tests.apiserver.writes import write
from tests.ports import kept

Result = TypeVar("Result")
Control = Callable[["ApiServer", Connection, Request], Coroutine[Any, Any, None]]
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}
CONTROL = "/_control/"


class LoggedRequest(NamedTuple):
    """A request, as an entry of the log."""

    time: float
    """time.monotonic()"""
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    verb: str
    """get, list, watch, create, update, patch, delete; for other paths the method in lower case."""
    resource: str
    """The plural; "" for paths without a resource."""
    connection: int
    """The number of the connection. Requests with equal numbers used the same connection."""

    @property
    def user_agent(self) -> str:
        return self.headers.get("user-agent", "")

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


class ApiServer:
    """A server on `host`. It uses https with `tls`, and authentication with `tokens` or `required`.

    `bind` makes the socket. In a namespace of the lab it is
    `lambda host, port: node.inside(lambda: kept(host, port))`.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: Authority | None = None,
        tokens: Iterable[str] = (),
        required: bool = False,
        capacity: int = 10_000,
        bind: Bind = kept,
        control: Control | None = None,
    ) -> None:
        self.host, self.tls = host, tls
        self.store = Store(capacity)
        self.faults = Faults()
        tokens = tuple(tokens)
        self.access = Access(required or bool(tokens), tokens)
        self.bookmark_every = 60.0
        """Seconds between bookmarks."""
        self.bookmarks = True
        """Whether bookmarks are sent without `watches.bookmark`."""
        self.streams = True
        """Whether streamed lists are sent (the feature WatchList)."""
        self.protobuf = True
        """Whether clients that accept protobuf get it, as far as the objects have such a form."""
        self.expired_as_status = False
        """Whether a watch from a compacted revision gets HTTP status 410 instead of an ERROR event."""
        self.watches = Watches(self.store, self)
        self.log: list[LoggedRequest] = []
        self._control = control
        context = server_context(tls, host) if tls else None
        self._listener = Listener(host, port, bind, context, self._handle)

    # Start and stop

    def __enter__(self) -> ApiServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start to listen; `url` is known afterwards."""
        self._listener.start()

    def close(self) -> None:
        """End all connections and the thread."""
        self._listener.close()

    @property
    def port(self) -> int:
        return self._listener.port

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"

    def stop(self, *, reset: bool = True) -> None:
        """Refuse new connections, and end the existing ones (with a RST, or properly)."""
        self._listener.stop(reset=reset)

    def resume(self) -> None:
        """Listen again, on the same port."""
        self._listener.resume()

    def refuse(self) -> None:
        """Refuse new connections until `resume`. The existing ones stay."""
        self._listener.refuse()

    def restart(self) -> None:
        """Restart like kube-apiserver: objects and revision stay in etcd, and the watch cache is new.

        Every older revision is 410 then. After `stop` and `resume` alone, the history is still there.
        """
        self.stop()
        self.store.compact()
        self.resume()

    def restore(self, snapshot: Snapshot | None = None) -> None:
        """Restore etcd from `store.backup()`, or make it empty. The revision becomes lower."""
        self.stop()
        self.store.restore(snapshot)
        self.resume()

    # Objects

    def create(self, *manifests: Manifest) -> None:
        """Create objects; 409 if one exists."""
        for manifest in manifests:
            self.store.create(_resource(manifest), manifest)

    def update(self, *manifests: Manifest) -> None:
        """Update objects; 404 if one does not exist."""
        for manifest in manifests:
            self.store.update(_resource(manifest), manifest)

    def apply(self, *manifests: Manifest) -> None:
        """Create or replace objects."""
        for manifest in manifests:
            self.store.put(_resource(manifest), manifest)

    def delete(self, *manifests: Manifest) -> None:
        """Delete objects with the names of these; 404 if one does not exist."""
        for manifest in manifests:
            resource = _resource(manifest)
            self.store.delete(resource, resource.key(manifest))

    def load(self, manifests: Iterable[Manifest]) -> None:
        """Create or replace many objects."""
        self.store.load(manifests)

    def prepare(self) -> None:
        """Encode the objects, so that a streamed list costs no time for that, as in a real server in Go."""
        for resource, collection in self.store.collections.items():
            if protobuf.has_protobuf(resource.kind):
                for stored in collection.objects.values():
                    with suppress(protobuf.Unencodable):
                        protobuf.event(event_line(resource, "ADDED", stored.body))

    def get(self, kind: str, name: str, namespace: str = "default") -> Manifest:
        """Return an object as it is now."""
        resource = BY_KIND[kind]
        found: Stored = self.store.collections[resource].objects[resource.key_of(namespace, name)]
        return {"kind": kind, "apiVersion": resource.api_version, **found.manifest()}

    def burst(self) -> AbstractContextManager[None]:
        """Send the changes in the block to watches in one piece."""
        return self.store.burst()

    # The log

    def requests(self, *, verb: str = "", resource: str = "") -> list[LoggedRequest]:
        """Return the requests so far, in order."""
        return [
            seen for seen in list(self.log) if verb in ("", seen.verb) and resource in ("", seen.resource)
        ]

    def wait(self, condition: Callable[[], Result], seconds: float = 60) -> Result:
        """Wait until `condition()` is true. Returns its value. Raises AssertionError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not (result := condition()):
            assert time.monotonic() < deadline, f"not within {seconds} s; requests: {self.log}"
            time.sleep(0.005)
        return result

    # Requests

    async def _handle(self, connection: Connection, request: Request) -> None:
        if self._control and request.path.startswith(CONTROL):
            await self._control(self, connection, request)
            return
        target = target_of(request.path)
        verb = _verb(request, target)
        plural = target.resource.plural if target else ""
        self.log.append(LoggedRequest(time.monotonic(), *request[:4], verb, plural, connection.number))
        connection.protobuf = self._in_protobuf(request, target)
        try:
            if await faults.apply(connection, self.faults.take(verb, plural), self.faults):
                return
            user = self.access.user(request)
            if target is None:
                await self._other(connection, request)
                return
            self.access.check(user, verb, target)
            await self._resource(connection, request, target, verb)
        except ApiError as error:
            headers = [("retry-after", str(error.retry_after))] if error.retry_after is not None else []
            await connection.object(error.code, msgspec.json.encode(error.status), headers)

    def _in_protobuf(self, request: Request, target: Target | None) -> bool:
        accepted = request.headers.get("accept", "").startswith(protobuf.MEDIA_TYPE)
        known = target is not None and protobuf.has_protobuf(target.resource.kind)
        return self.protobuf and accepted and known

    async def _resource(self, connection: Connection, request: Request, target: Target, verb: str) -> None:
        match verb:
            case "watch":
                await self.watches.serve(connection, target, request.query)
            case "list":
                await connection.object(200, list_objects(self.store, target, request.query))
            case "get":
                await connection.object(200, get(self.store, target))
            case _:
                await connection.object(*write(self.store, target, request))

    async def _other(self, connection: Connection, request: Request) -> None:
        if request.method != "GET":
            raise no_such_path()
        if request.path in ("/healthz", "/livez", "/readyz"):
            await connection.answer(200, b"ok", "text/plain; charset=utf-8")
            return
        content = VERSION if request.path == "/version" else discovery(request.path)
        if content is None:
            raise no_such_path()
        await connection.json(200, content)


_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


def _verb(request: Request, target: Target | None) -> str:
    if target is None or request.method not in ("GET", *_VERBS):
        return request.method.lower()
    if request.method != "GET":
        return _VERBS[request.method]
    if target.name:
        return "get"
    if request.query.get("watch", "") in ("true", "1"):
        return "watch"
    return "list"


def _resource(manifest: Manifest) -> Resource:
    return BY_KIND[manifest["kind"]]
