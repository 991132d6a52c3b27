"""A server and clients for each test: the double, or the real API server that the environment names."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest

from kproxy.sources.cluster.credentials import Credentials
from tests.apiserver import ApiServer
from tests.apiserver.client import Client
from tests.apiserver.own import Connect, Own
from tests.controlplane import NEEDS_PROCESS, Cluster


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """The double, without TLS and without authentication."""
    with ApiServer() as server:
        yield server


@pytest.fixture
def client(api: ApiServer) -> Iterator[Client]:
    """A client of the double."""
    with Client(api.url) as client:
        yield client


@pytest.fixture
def connect(request: pytest.FixtureRequest, cluster: Cluster | None) -> Connect:
    """Return a function that makes clients of the real API server, or of the double if there is none."""
    if cluster:
        credentials = Credentials(cluster.kubeconfig)
        endpoint = credentials.load()
        token = (credentials.authorization() or "").removeprefix("Bearer ")
        return lambda: Client(endpoint.server, token=token, context=endpoint.tls or None)
    api: ApiServer = request.getfixturevalue("api")
    return lambda: Client(api.url)


@pytest.fixture
def unknown_client(request: pytest.FixtureRequest, cluster: Cluster | None) -> Iterator[Client]:
    """A client with an unknown token and no certificate."""
    url = Credentials(cluster.kubeconfig).load().server if cluster else request.getfixturevalue("api").url
    with Client(url, token="unknown", context=ssl._create_unverified_context()) as client:
        yield client


@pytest.fixture
def own(connect: Connect) -> Iterator[Own]:
    """A namespace in that server."""
    with Own(connect) as own:
        yield own


@pytest.fixture
def forget(request: pytest.FixtureRequest, cluster: Cluster | None, own: Own) -> Callable[[], None]:
    """Return a function that restarts the server with an etcd that has no history."""
    if cluster and not cluster.control_plane:
        pytest.skip(NEEDS_PROCESS)

    def end() -> None:
        own.client.connection.close()
        if cluster and cluster.control_plane:
            cluster.control_plane.compact()
        else:
            request.getfixturevalue("api").restart()

    return end
