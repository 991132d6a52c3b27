"""Audits with a real kernel: they find what another program changed, also while kproxy commits changes."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.nft.elements import Keys
from kproxy.reconcile import audit as audit_module
from kproxy.reconcile.audit import Audit
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import Delta, Desired, compile_frontends
from kproxy.table.skeleton import Options
from tests.unit.make import frontend

pytestmark = pytest.mark.lab

IP = Family.IPV4


def desired(*ends: str, count: int = 1) -> Desired:
    services = [frontend(f"10.96.{n >> 8}.{n & 255}:80", list(ends), owner=f"a/s{n}") for n in range(count)]
    return compile_frontends(services, IP)


def nft(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)


def audited(
    before: Callable[[Dataplane], object] = lambda dataplane: None,
    during: Callable[[Dataplane], object] = lambda dataplane: None,
    count: int = 3,
) -> tuple[Keys | None, bool]:
    """Audit a table of `count` services. Returns the result, and whether the table then counts as unchanged.

    `before` is done to it before the audit, `during` after the table was read.
    """

    def story() -> tuple[Keys | None, bool]:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, IP, Options())
            dataplane.reconcile(desired("10.0.0.1:80", count=count))
            before(dataplane)
            audit = Audit(dataplane)
            audit.read()
            during(dataplane)
            found = audit.finish()
            return found, dataplane.is_unchanged()

    return in_fresh_namespace(story)


def grow(dataplane: Dataplane) -> None:
    """Program a change: the number of endpoints of one service, and so a new numbered chain."""
    dataplane.change(Delta(dict(desired("10.0.0.1:80", "10.0.0.2:80").specs), {}))


def test_a_table_that_is_right_needs_no_repair() -> None:
    assert audited() == ({}, True)
    assert audited(before=grow) == ({}, True)
    assert audited(lambda _: nft("add table ip other")) == ({}, True)


def test_changes_during_an_audit_are_no_differences() -> None:
    assert audited(during=grow) == ({}, True)
    assert audited(during=lambda dataplane: dataplane.change(delete(dataplane))) == ({}, True)


def delete(dataplane: Dataplane) -> Delta:
    return Delta(dict.fromkeys(desired("10.0.0.1:80").specs), {})


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("delete element ip kproxy services { 10.96.0.1 . tcp . 80 }", "services"),
        ("delete element ip kproxy cluster-ips { 10.96.0.1 }; add element ip kproxy cluster-ips { 10.9.9.9 }", "cluster-ips"),
        ("add element ip kproxy endpoints-tcp { 10.9.9.9 . 80 . 0 : 10.0.0.9 . 80 }", "endpoints-tcp"),
    ],
)  # fmt: skip
def test_elements_that_another_program_changed_are_found(script: str, name: str) -> None:
    found, _ = audited(lambda _: nft(script.replace("; ", "\n")))
    assert found is not None
    assert [*found] == [name]
    assert len(found[name]) == script.count("element")


def test_an_element_that_was_changed_back_is_no_difference() -> None:
    remove = "delete element ip kproxy cluster-ips { 10.96.0.1 }"
    found, _ = audited(lambda _: nft(remove), lambda _: nft(remove.replace("delete", "add")))
    assert found == {}


@pytest.mark.parametrize(
    "script",
    [
        "flush chain ip kproxy services",
        "add chain ip kproxy foreign",
        "delete table ip kproxy",
        "flush ruleset",
        "add rule ip kproxy lb-1 counter",
    ],
)
def test_another_structure_requires_a_comparison(script: str) -> None:
    assert audited(lambda _: nft(script))[0] is None


def test_many_differences_require_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "LARGE", 2)
    assert audited(lambda _: nft("flush map ip kproxy endpoints-tcp"))[0] is None


def test_an_audit_between_many_commits_finds_nothing() -> None:
    """Without asking for each element again, it would find what dumps lack while kproxy commits."""

    def story() -> list[Keys | None]:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, IP, Options())
            dataplane.reconcile(desired("10.0.0.1:80", count=2000))
            whole, found = desired("10.0.0.1:80", count=2000).specs, []
            for number in range(3):
                audit = Audit(dataplane)
                audit.read()
                part = dict(list(whole.items())[number * 500 : number * 500 + 500])
                dataplane.change(Delta(dict.fromkeys(part), {}))
                found.append(audit.finish())
            return found

    assert in_fresh_namespace(story) == [{}, {}, {}]
