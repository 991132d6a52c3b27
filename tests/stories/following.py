"""A node that follows an API server: what the stories about clusters begin with, and what they ask.

following.apply(service(), *slices(...))    to the API server
following.right()                           the tables are as its objects ask for, sooner or later
following.answering()                       which pods answer a client of the service
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get, many
from netns_lab.topology import Family

from tests.apiserver import ApiServer
from tests.apiserver.kubeconfig import User, write_kubeconfig
from tests.apiserver.listener import create_server
from tests.apiserver.resources import RESOURCES
from tests.support import SERVICE_IP, Manifest, Running, eventually
from tests.truth import Truth

REAL = "KPROXY_TEST_KUBECONFIG"
"""The environment's name for the kubeconfig of a real API server (remote.py)."""
PATIENCE = 40.0
"""Seconds until the tables have to be right: an API server that was away is asked again after a while."""


class Told(ABC):
    """kproxy on node n1, and what its tables ought to be by what an API server says."""

    def __init__(self, lab: Lab, running: Running, truth: Truth) -> None:
        self.lab, self.running, self.truth = lab, running, truth
        self._wrong: list[str] = []

    @abstractmethod
    def apply(self, *manifests: Manifest) -> None:
        """Create or replace objects."""

    @abstractmethod
    def delete(self, *manifests: Manifest) -> None:
        """Delete what has the names of these."""

    @abstractmethod
    def objects(self) -> list[Manifest]:
        """All that the API server has, of the kinds that a node follows."""

    def right(self, patience: float = PATIENCE) -> None:
        """Wait until the tables are as the API server's objects ask for; AssertionError with what differs."""

        def holds() -> bool:
            self._wrong = self.truth.wrong(self.objects())
            return not self._wrong

        eventually(holds, self._explain, patience)

    def _explain(self) -> str:
        return "\n".join([*self._wrong[:20], "", *self.running.said().splitlines()[-40:]])

    def answering(self, family: Family = 4, address: str = "", port: int = 80) -> set[str]:
        """The pods that answer at an address (by default the service's), or what else comes of asking."""
        client, address = self.lab.client("outside"), address or SERVICE_IP[family]
        first = http_get(client, address, port, timeout=1)
        if first.outcome is not Outcome.ANSWERED:
            return {str(first.outcome)}
        return set(many(client, address, port, 20))


class Following(Told):
    """Of the double, whose faults are at hand: `api`."""

    def __init__(self, lab: Lab, api: ApiServer, running: Running, truth: Truth) -> None:
        super().__init__(lab, running, truth)
        self.api = api

    def apply(self, *manifests: Manifest) -> None:
        """In namespace default unless they say otherwise."""
        self.api.apply(*in_default(*manifests))

    def delete(self, *manifests: Manifest) -> None:
        self.api.delete(*in_default(*manifests))

    def objects(self) -> list[Manifest]:
        with self.api.store.lock:
            return [
                {"apiVersion": resource.api_version, "kind": resource.kind, **stored.manifest()}
                for resource in RESOURCES
                for stored in self.api.store.collections[resource].objects.values()
            ]

    def watched(self) -> None:
        """Wait until every kind is watched."""
        kinds = ("services", "endpointslices", "nodes")
        self.api.wait(lambda: all(self.api.watches.of(kind) for kind in kinds), 2 * PATIENCE)


def in_default(*manifests: Manifest) -> list[Manifest]:
    """As an API server has them: with their namespace."""
    return [{**made, "metadata": {"namespace": "default", **made["metadata"]}} for made in manifests]


def beside(lab: Lab, **options: object) -> ApiServer:
    """An API server on the lab's client, not started yet."""
    outside = lab.client("outside")
    return ApiServer(
        host=outside.address(4),
        listen=lambda host, port: outside.inside(lambda: create_server(host, port)),
        **options,  # type: ignore[arg-type]
    )


@contextmanager
def following(
    lab: Lab,
    folder: Path,
    *manifests: Manifest,
    flags: Sequence[str] = (),
    user: User | None = None,
    start: bool = True,
    cluster_cidr: bool = True,
    pod_cidrs: str | None = None,
    **options: object,
) -> Iterator[Following]:
    """kproxy run on node n1, of an API server that has these manifests; `options` are ApiServer's.

    Where a real API server is to be tried, a test that asks for the double is skipped.
    """
    if os.environ.get(REAL):
        pytest.skip("needs an API server that does what the test wants: the double")
    truth = Truth(lab.node("n1"), pod_cidrs)
    try:
        with beside(lab, **options) as api:
            api.apply(*in_default(*manifests))
            kubeconfig = write_kubeconfig(folder / "kubeconfig", api.url, user or {})
            node = lab.node("n1")
            running = Running(node, folder, ["--kubeconfig", str(kubeconfig), *flags], cluster_cidr)
            if start:
                running.start()
            try:
                yield Following(lab, api, running, truth)
            finally:
                running.__exit__()
    finally:
        truth.close()
