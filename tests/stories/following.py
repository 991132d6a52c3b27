"""Stories of a node that follows an API server, either the double or a real one.

story.apply(service(), *slices(...))    change objects in the API server
story.network.cut()                     cause a fault of the network between it and the node
story.server.restart()                  cause a fault of the server
story.converges()                       wait until the tables match the server's objects
story.answering()                       the pods that answer a client of the Service

A fixture (conftest.py) provides `story`: `following` if the story only needs a network to a server, `owning`
if it also controls the server's process, `double` if it needs the double.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get
from netns_lab.topology import Family

from tests.support import SERVICE_IP, Manifest, Running, all_pods, eventually
from tests.truth import Truth

PATIENCE = 120.0
"""Seconds until the tables must be correct. kproxy retries an unreachable API server after a delay."""
KINDS = ("services", "endpointslices", "nodes")


class Network(Protocol):
    """Faults of the network between a node and its API server."""

    def close(self) -> None:
        """Make the server unreachable: connections are reset, and new ones are refused."""

    def open(self) -> None:
        """Make the server reachable again."""

    def refuse(self) -> None:
        """Refuse new connections until `open`. Existing connections stay."""

    def cut(self) -> None:
        """Reset all connections. New ones are accepted."""

    def hang_up(self) -> None:
        """Close all connections in the middle of an answer. New ones are accepted."""

    def hold(self) -> None:
        """Deliver nothing any more. Connections stay open (half-open)."""

    def release(self) -> None:
        """Deliver what was held."""

    def tear(self, after: int, times: int) -> None:
        """Reset all connections, and the next `times` answers after `after` bytes."""

    def slow(self, times: int) -> None:
        """Reset all connections, and send the next `times` answers in small pieces."""


class Server(ABC):
    """Faults of an API server and its etcd."""

    @abstractmethod
    def restart(self) -> None:
        """Kill and start the server. Objects and revision stay in etcd; the watch cache is new."""

    @abstractmethod
    def upgrade(self) -> None:
        """Stop the server, which ends its watches, and start another one."""

    @abstractmethod
    def compact(self) -> None:
        """Compact etcd while the server is down, so that etcd has no history."""

    @abstractmethod
    def backup(self) -> Any:
        """Return a copy of etcd's content, for `restore`."""

    @abstractmethod
    def restore(self, backup: Any) -> None:
        """Restore etcd's content with its revision. None: make it empty."""

    @abstractmethod
    def rotate(self, token: str) -> None:
        """Accept only this token from now on. Open watches end."""

    @abstractmethod
    def forbid(self) -> None:
        """Answer the node's requests with 403 until `allow`."""

    @abstractmethod
    def allow(self) -> None:
        """End the effect of `forbid`."""


class ClusterStory(ABC):
    """kproxy on node n1, an API server, and the content that the tables must have."""

    network: Network
    token: Path
    """The file with kproxy's token, if the server requires tokens."""
    namespace = "default"
    """Of the objects that the story writes."""

    def __init__(self, lab: Lab, running: Running, truth: Truth) -> None:
        self.lab, self.running, self.truth = lab, running, truth
        self._wrong: list[str] = []

    @property
    def server(self) -> Server:
        """The server. Only if `owned`."""
        raise AssertionError("the test does not control the server's process")

    @property
    def owned(self) -> bool:
        """Whether the test controls the server's process."""
        return False

    @abstractmethod
    def apply(self, *manifests: Manifest) -> None:
        """Create or replace objects."""

    @abstractmethod
    def delete(self, *manifests: Manifest) -> None:
        """Delete objects with the names of these."""

    @abstractmethod
    def objects(self) -> list[Manifest]:
        """Return all objects in the API server of the kinds that a node follows."""

    @abstractmethod
    def watched(self) -> None:
        """Wait until every kind is watched."""

    def burst(self) -> AbstractContextManager[None]:
        """Send the changes in the block as one piece, if the server can."""
        return nullcontext()

    def converges(self, patience: float = PATIENCE) -> None:
        """Wait until the tables match the server's objects. Raises AssertionError with the differences."""

        def holds() -> bool:
            self._wrong = self.truth.wrong(self.objects())
            return not self._wrong

        eventually(holds, self._explain, patience)

    def logs(self, text: str, times: int = 1, patience: float = PATIENCE) -> None:
        """Wait until kproxy has logged a text so many times."""
        eventually(lambda: self.running.logged().count(text) >= times, self.running.logged, patience)

    def _explain(self) -> str:
        return "\n".join([*self._wrong[:20], "", *self.running.logged().splitlines()[-40:]])

    def answering(self, family: Family = 4, address: str = "", port: int = 80) -> set[str]:
        """Return the pods that answer at an address (default: the Service's), or the failure."""
        client, address = self.lab.client("outside"), address or SERVICE_IP[family]
        first = http_get(client, address, port, timeout=1)
        if first.outcome is not Outcome.ANSWERED:
            return {str(first.outcome)}
        return all_pods(client, address, port)


Follow = Callable[..., AbstractContextManager[ClusterStory]]
"""Run kproxy on node n1, following an API server that has the manifests in the arguments. Options: `flags`,
`start` (False: do not start kproxy), `cluster_cidr`, `pod_cidrs`."""
