"""A server and a client of it for each test that asks for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import Client


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Without TLS, open to everyone."""
    with ApiServer() as server:
        yield server


@pytest.fixture
def client(api: ApiServer) -> Iterator[Client]:
    with Client(api.url) as client:
        yield client
