"""A node that follows an API server, the double or a real one: what stories about clusters say and ask.

told.apply(service(), *slices(...))    to the API server
told.way.cut()                         what happens between it and the node
told.server.restart()                  what happens to it
told.right()                           the tables are as its objects ask for, sooner or later
told.answering()                       which pods answer a client of the service

`told` comes from a fixture (conftest.py): `following` for a story that needs no more than a way to a
server, `owning` for one that does something to the server's process, `double` for what only the double does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get, many
from netns_lab.topology import Family

from tests.support import SERVICE_IP, Manifest, Running, eventually
from tests.truth import Truth

PATIENCE = 120.0
"""Seconds until the tables have to be right: an API server that was away is asked again after a while."""
KINDS = ("services", "endpointslices", "nodes")


class Way(ABC):
    """What can happen between a node and its API server, which knows nothing of it."""

    @abstractmethod
    def close(self) -> None:
        """The server is away: connections are reset, new ones are refused."""

    @abstractmethod
    def open(self) -> None:
        """It is there again."""

    @abstractmethod
    def refuse(self) -> None:
        """New connections are refused until `open`; those that there are stay."""

    @abstractmethod
    def cut(self) -> None:
        """Connections are reset; new ones are taken."""

    @abstractmethod
    def hang_up(self) -> None:
        """Connections are closed without a word, in the middle of what was said; new ones are taken."""

    @abstractmethod
    def hold(self) -> None:
        """Half open: connections stay, and nothing comes any more."""

    @abstractmethod
    def release(self) -> None:
        """What was held comes."""

    @abstractmethod
    def tear(self, after: int, times: int) -> None:
        """Connections are reset, and so are the next answers, after so many bytes."""

    @abstractmethod
    def slow(self, times: int) -> None:
        """Connections are reset, and the next answers come in little pieces."""


class Server(ABC):
    """What can happen to an API server and its etcd."""

    @abstractmethod
    def restart(self) -> None:
        """It is killed, and starts: objects and revision are etcd's, the watch cache begins now."""

    @abstractmethod
    def upgrade(self) -> None:
        """It ends its watches properly and itself, and another one starts."""

    @abstractmethod
    def compact(self) -> None:
        """While it was away, etcd forgot all history."""

    @abstractmethod
    def backup(self) -> Any:
        """What etcd has now, for `restore`."""

    @abstractmethod
    def restore(self, backup: Any) -> None:
        """etcd becomes what it was: objects and revision go back. None: it is empty."""

    @abstractmethod
    def rotate(self, token: str) -> None:
        """Only this token is good for the node from now on; open watches end."""

    @abstractmethod
    def forbid(self) -> None:
        """What the node asks for is forbidden (403) until `allow`."""

    @abstractmethod
    def allow(self) -> None:
        """Undo it."""


class Told(ABC):
    """kproxy on node n1, and what its tables ought to be by what an API server says."""

    way: Way
    token: Path
    """The file that kproxy has its token from, where tokens are asked for."""

    def __init__(self, lab: Lab, running: Running, truth: Truth) -> None:
        self.lab, self.running, self.truth = lab, running, truth
        self._wrong: list[str] = []

    @property
    def server(self) -> Server:
        """Only where `owned`."""
        raise AssertionError("the server's process is not the test's")

    @property
    def owned(self) -> bool:
        """Whether something can be done to the `server`."""
        return False

    @abstractmethod
    def apply(self, *manifests: Manifest) -> None:
        """Create or replace objects."""

    @abstractmethod
    def delete(self, *manifests: Manifest) -> None:
        """Delete what has the names of these."""

    @abstractmethod
    def objects(self) -> list[Manifest]:
        """All that the API server has, of the kinds that a node follows."""

    @abstractmethod
    def watched(self) -> None:
        """Wait until every kind is watched."""

    def burst(self) -> AbstractContextManager[None]:
        """What is written inside comes in one piece, where the API server can do that."""
        return nullcontext()

    def right(self, patience: float = PATIENCE) -> None:
        """Wait until the tables are as the API server's objects ask for; AssertionError with what differs."""

        def holds() -> bool:
            self._wrong = self.truth.wrong(self.objects())
            return not self._wrong

        eventually(holds, self._explain, patience)

    def says(self, text: str, times: int = 1, patience: float = PATIENCE) -> None:
        """Wait until kproxy has said something so many times."""
        eventually(lambda: self.running.logged().count(text) >= times, self.running.logged, patience)

    def _explain(self) -> str:
        return "\n".join([*self._wrong[:20], "", *self.running.logged().splitlines()[-40:]])

    def answering(self, family: Family = 4, address: str = "", port: int = 80) -> set[str]:
        """The pods that answer at an address (by default the service's), or what else comes of asking."""
        client, address = self.lab.client("outside"), address or SERVICE_IP[family]
        first = http_get(client, address, port, timeout=1)
        if first.outcome is not Outcome.ANSWERED:
            return {str(first.outcome)}
        return set(many(client, address, port, 20))


Follow = Callable[..., AbstractContextManager[Told]]
"""kproxy run on node n1, of an API server that has the manifests that are given. Options: `flags`,
`start` (or wait with that), `cluster_cidr`, `pod_cidrs`."""
