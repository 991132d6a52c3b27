"""Stories of a node that follows the double of an API server. `story.api` can cause its faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from netns_lab.lab import Lab

from tests.apiserver import ApiServer
from tests.apiserver.access import Denial
from tests.apiserver.faults import Reset, Trickle
from tests.apiserver.kubeconfig import token_file, write_kubeconfig
from tests.apiserver.resources import RESOURCES
from tests.apiserver.store import Snapshot
from tests.ports import kept
from tests.stories.following import KINDS, PATIENCE, ClusterStory, Network, Server
from tests.support import Manifest, Running
from tests.truth import Truth

TOKEN = "one"


class OfDouble:
    """A part of the double."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api


class DoubleNetwork(OfDouble, Network):
    """The double itself simulates network faults."""

    def close(self) -> None:
        self._api.stop()

    def open(self) -> None:
        self._api.resume()

    def refuse(self) -> None:
        self._api.refuse()

    def cut(self) -> None:
        self._api.watches.reset()

    def hang_up(self) -> None:
        self._api.stop(reset=False)
        self._api.resume()

    def hold(self) -> None:
        self._api.watches.hold()

    def release(self) -> None:
        self._api.watches.release()

    def tear(self, after: int, times: int) -> None:
        self._api.faults.add(Reset(after), times=times)
        self.cut()

    def slow(self, times: int) -> None:
        self._api.faults.add(Trickle(7, 0.001), times=times)
        self.cut()


class DoubleServer(OfDouble, Server):
    """The double's store simulates etcd and the watch cache."""

    def restart(self) -> None:
        self._api.restart()

    def upgrade(self) -> None:
        watches = self._api.watches
        before = watches.of()
        watches.end()
        self._api.wait(lambda: not any(watch in watches.open for watch in before))
        self._api.restart()

    def compact(self) -> None:
        self._api.stop()
        self._api.store.compact()
        self._api.resume()

    def backup(self) -> Snapshot:
        return self._api.store.backup()

    def restore(self, backup: Snapshot | None) -> None:
        self._api.restore(backup)

    def rotate(self, token: str) -> None:
        self._api.access.rotate(token)
        self._api.watches.reset()

    def forbid(self) -> None:
        self._api.access.denied.add(Denial())
        self._api.watches.reset()

    def allow(self) -> None:
        self._api.access.denied.clear()


class DoubleStory(ClusterStory):
    """A story with the double. It changes the double's objects directly, without requests."""

    def __init__(self, lab: Lab, api: ApiServer, running: Running, truth: Truth, token: Path) -> None:
        super().__init__(lab, running, truth)
        self.api, self.token = api, token
        self.network = DoubleNetwork(api)

    @property
    def server(self) -> Server:
        return DoubleServer(self.api)

    @property
    def owned(self) -> bool:
        return True

    def apply(self, *manifests: Manifest) -> None:
        """Create or replace objects. The default namespace is `default`."""
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
        # After repeated failures, each kind is tried again within a minute, and may fail once more.
        self.api.wait(lambda: all(self.api.watches.of(kind) for kind in KINDS), PATIENCE)

    def burst(self) -> AbstractContextManager[None]:
        return self.api.burst()


Double = Callable[..., AbstractContextManager[DoubleStory]]
"""As `Follow`, but with the double in every case. The first argument says why the story needs the double."""


def in_default(*manifests: Manifest) -> list[Manifest]:
    """Add the namespace `default` to manifests without a namespace, as an API server does."""
    return [{**made, "metadata": {"namespace": "default", **made["metadata"]}} for made in manifests]


def external_api(lab: Lab, **options: Any) -> ApiServer:
    """Return an API server on the lab's client, not started yet. `options` are those of ApiServer."""
    outside = lab.client("outside")
    return ApiServer(
        host=outside.address(4),
        bind=lambda host, port: outside.inside(lambda: kept(host, port)),
        **options,
    )


@contextmanager
def doubled(
    lab: Lab,
    folder: Path,
    *manifests: Manifest,
    flags: Sequence[str] = (),
    start: bool = True,
    cluster_cidr: bool = True,
    service_cidr: bool = True,
    pod_cidrs: str | None = None,
) -> Iterator[DoubleStory]:
    """Run kproxy on node n1, following a double that has these manifests."""
    truth = Truth(lab.node("n1"), pod_cidrs)
    token = folder / "token"
    token.write_text(TOKEN)
    try:
        with external_api(lab, tokens=(TOKEN,)) as api:
            api.apply(*in_default(*manifests))
            kubeconfig = write_kubeconfig(folder / "kubeconfig", api.url, token_file(token))
            flags = ["--kubeconfig", str(kubeconfig), *flags]
            running = Running(lab.node("n1"), folder, flags, cluster_cidr, service_cidr)
            if start:
                running.start()
            try:
                yield DoubleStory(lab, api, running, truth, token)
            finally:
                running.__exit__()
    finally:
        truth.close()
