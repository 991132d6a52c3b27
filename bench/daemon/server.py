"""The double of the API server as a process, and changes of its objects."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from bench.daemon.kernel import frontend_bytes, socket_bytes
from bench.daemon.subject import NODE, NODE_IP
from bench.manifests import manifests
from bench.process import Failed
from bench.samples import PORT, TARGET_PORT, Endpoint, Sample, spare
from tests.apiserver.objects import node


class Change(NamedTuple):
    """An EndpointSlice that replaces the previous one."""

    manifest: Any
    shows: tuple[bytes, ...]
    """Endpoints and frontends. The change is done when an element of one of them is added or removed."""


def this_node() -> Any:
    """Return the Node. kube-proxy waits for one with an address."""
    return {**node(NODE), "status": {"addresses": [{"type": "InternalIP", "address": NODE_IP}]}}


def objects(sample: Sample, protocol: str = "TCP") -> list[Any]:
    """Return a Service and its EndpointSlice."""
    service, slice_ = manifests([sample])["items"]
    for port in (*service["spec"]["ports"], *slice_["ports"]):
        port["protocol"] = protocol
    return [service, slice_]


def replaced(sample: Sample, number: int, protocol: str = "TCP") -> Change:
    """Replace the last endpoint with the unused address number `number`."""
    *unchanged, last = sample.endpoints
    sample = sample._replace(endpoints=(*unchanged, last._replace(address=spare(number))))
    return Change(objects(sample, protocol)[1], (socket_bytes(spare(number), TARGET_PORT),))


def resized(sample: Sample, number: int) -> Iterator[Change]:
    """Add an endpoint, and remove it again."""
    endpoint, frontend = socket_bytes(spare(number), TARGET_PORT), frontend_bytes(sample.address, "TCP", PORT)
    more = sample._replace(endpoints=(*sample.endpoints, Endpoint(spare(number), "node-0")))
    for each in (more, sample):
        yield Change(objects(each)[1], (endpoint, frontend))


class Server(Protocol):
    """A running API server."""

    def apply(self, manifests: Iterable[Any], /) -> int:
        """Create or replace objects. Returns the revision afterwards."""
        ...

    def sent_at(self, after: int, /) -> dict[int, float]:
        """Return when the events after a revision were sent (time.monotonic), by revision."""
        ...


class Double:
    """The double of the tests, controlled through HTTP."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc)

    def apply(self, manifests: Iterable[Any]) -> int:
        body = msgspec.json.encode({"apply": list(manifests)})
        return int(self._ask("POST", "objects", body)["revision"])

    @property
    def port(self) -> int:
        """The port on 127.0.0.1."""
        return self._connection.port

    def requests(self) -> int:
        """Return the number of requests so far."""
        return len(self._ask("GET", "log"))

    def set_streams(self, streams: bool) -> None:
        """Set whether it sends streamed lists."""
        self._ask("POST", "streams", msgspec.json.encode(streams))

    def sent_at(self, after: int) -> dict[int, float]:
        return {revision: when for revision, _, _, when in self._ask("GET", f"sent?after={after}")}

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        self._connection.request(method, f"/_control/{path}", body)
        response = self._connection.getresponse()
        content = msgspec.json.decode(response.read())
        if response.status != 200:
            raise Failed(f"the double of the API server: {content}")
        return content


@contextmanager
def serving(folder: Path, services: int) -> Iterator[Double]:
    """Start a server with so many Services. `folder` gets the kubeconfig."""
    command = [sys.executable, "-m", "tests.apiserver", "--services", str(services)]
    command += ["--kubeconfig", str(folder / "kubeconfig")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise Failed("the double of the API server does not start")
            time.sleep(0.2)
            double = Double(url)
            double.apply([this_node()])
            yield double
        finally:
            process.terminate()
