"""The cache of this host's addresses."""

from __future__ import annotations

import pytest

from kproxy.kernel import host
from kproxy.kernel.host import HostAddresses, primary_addresses
from kproxy.kernel.netlink import route
from kproxy.model import Address, parse_address
from kproxy.problems import HostError

OLD, NEW = (parse_address("192.0.2.1"),), (parse_address("192.0.2.2"),)


def test_an_address_that_changes_during_a_query_is_queried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses, queries = HostAddresses(), list[int]()

    def query() -> tuple[Address, ...]:
        queries.append(1)
        if len(queries) == 1:
            addresses.forget()  # from another thread
            return OLD
        return NEW

    monkeypatch.setattr(host, "primary_addresses", query)
    assert [addresses.primary() for _ in range(3)] == [OLD, NEW, NEW]
    assert len(queries) == 2


def test_an_error_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(kind: int, family: int) -> tuple[list[memoryview], bool]:
        raise OSError(19, "No such device")

    monkeypatch.setattr(route, "_read", read)
    with pytest.raises(HostError, match="No such device"):
        primary_addresses()


def test_a_list_that_changes_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """RTM_GETADDR: twice it changes, then it is complete."""
    answers = [([memoryview(bytes(8))], False), ([], False), ([], True)]
    monkeypatch.setattr(route, "_read", lambda kind, family: answers.pop(0))
    assert route.host_addresses() == []
    assert answers == []
