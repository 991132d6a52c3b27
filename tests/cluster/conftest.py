"""A server for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver import ApiServer


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Without TLS, open to everyone."""
    with ApiServer() as server:
        yield server
