"""The API server's double as a process, and changes that it is told of."""

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
from bench.manifests import manifests
from bench.process import Failed
from bench.samples import PORT, TARGET_PORT, Endpoint, Sample, spare


class Change(NamedTuple):
    """An EndpointSlice to be put in place of the one before."""

    manifest: Any
    shows: bytes
    """What the kernel gets new because of it: an endpoint or a frontend."""


def objects(sample: Sample, protocol: str = "TCP") -> list[Any]:
    """A Service and its EndpointSlice."""
    service, slice_ = manifests([sample])["items"]
    for port in (*service["spec"]["ports"], *slice_["ports"]):
        port["protocol"] = protocol
    return [service, slice_]


def replaced(sample: Sample, number: int, protocol: str = "TCP") -> Change:
    """Its last endpoint becomes the `number`th that nobody has had."""
    *protected, last = sample.endpoints
    sample = sample._replace(endpoints=(*protected, last._replace(address=spare(number))))
    return Change(objects(sample, protocol)[1], socket_bytes(spare(number), TARGET_PORT))


def resized(sample: Sample, number: int) -> Iterator[Change]:
    """It gets one endpoint more, and then is as it was."""
    shows = frontend_bytes(sample.address, "TCP", PORT)
    more = sample._replace(endpoints=(*sample.endpoints, Endpoint(spare(number), "node-0")))
    for each in (more, sample):
        yield Change(objects(each)[1], shows)


class Server(Protocol):
    """An API server that runs."""

    def apply(self, manifests: Iterable[Any], /) -> int:
        """Put objects; the revision after it."""
        ...

    def sent_at(self, after: int, /) -> dict[int, float]:
        """When the events of revisions after this one were sent (time.monotonic), by revision."""
        ...


class Double:
    """The tests' own, by its control."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc)

    def apply(self, manifests: Iterable[Any]) -> int:
        body = msgspec.json.encode({"apply": list(manifests)})
        return int(self._ask("POST", "objects", body)["revision"])

    def sent_at(self, after: int) -> dict[int, float]:
        return {revision: when for revision, _, _, when in self._ask("GET", f"sent?after={after}")}

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        self._connection.request(method, f"/_control/{path}", body)
        response = self._connection.getresponse()
        content = msgspec.json.decode(response.read())
        if response.status != 200:
            raise Failed(f"the API server's double: {content}")
        return content


@contextmanager
def serving(folder: Path, services: int) -> Iterator[Double]:
    """A server of so many services; `folder` gets the kubeconfig."""
    command = [sys.executable, "-m", "tests.apiserver", "--services", str(services)]
    command += ["--kubeconfig", str(folder / "kubeconfig")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise Failed("the API server's double does not start")
            time.sleep(0.2)
            yield Double(url)
        finally:
            process.terminate()
