"""A kernel without a feature that load-balancer addresses need, and versions of the kernel."""

from __future__ import annotations

import os

import pytest

from kproxy.kernel import uplink
from kproxy.kernel.host import kernel_since
from kproxy.kernel.uplink import AddressReport, Uplink
from kproxy.model import parse_address
from kproxy.problems import HostError


def test_a_kernel_that_cannot_mark_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uplink, "kernel_since", lambda *version: version < (5, 18))
    with pytest.raises(HostError, match=r"Linux 5\.18"):
        Uplink().add([parse_address("192.0.2.1")])
    assert Uplink().add([]) == AddressReport()


@pytest.mark.parametrize(
    ("release", "expected"),
    [("5.17.99", False), ("5.18.0-rc1", True), ("6.1.0-18-amd64", True), ("4.19.0", False), ("odd", False)],
)
def test_kernel_since(monkeypatch: pytest.MonkeyPatch, release: str, expected: bool) -> None:
    class Uname:
        pass

    uname = Uname()
    uname.release = release  # type: ignore[attr-defined]
    monkeypatch.setattr(os, "uname", lambda: uname)
    assert kernel_since(5, 18) is expected
