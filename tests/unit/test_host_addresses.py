"""This host's addresses: asked once, and what is forgotten while it is asked is asked again."""

from __future__ import annotations

import pytest

from kproxy.kernel import host
from kproxy.kernel.host import HostAddresses, routing
from kproxy.model import Address, parse_address
from kproxy.problems import HostError

OLD, NEW = (parse_address("192.0.2.1"),), (parse_address("192.0.2.2"),)


def test_what_changes_while_it_is_asked_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses, asked = HostAddresses(), list[int]()

    def ask() -> tuple[Address, ...]:
        asked.append(1)
        if len(asked) == 1:
            addresses.forget()  # from another thread
            return OLD
        return NEW

    monkeypatch.setattr(host, "primary_addresses", ask)
    assert [addresses.primary() for _ in range(3)] == [OLD, NEW, NEW]
    assert len(asked) == 2


def test_what_the_kernel_refuses_is_said() -> None:
    with pytest.raises(HostError, match="No such device"), routing():
        raise OSError(19, "No such device")
