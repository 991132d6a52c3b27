"""The fixture of an API server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver import ApiServer


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """A server without TLS and authentication."""
    with ApiServer() as server:
        yield server


@pytest.fixture
def paged(api: ApiServer) -> ApiServer:
    """The same server without streamed lists, as before Kubernetes 1.32."""
    api.streams = False
    return api
