"""The kernel refuses a transaction because another program changed the table: the contents of the error."""

from __future__ import annotations

import errno
import subprocess
from functools import partial
from typing import NamedTuple

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family, Frontend, Protocol, parse_address
from kproxy.problems import RefusedElement, TransactionError
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import difference
from kproxy.table.layout import SetName, frontend_key, frontend_socket, range_key
from kproxy.table.skeleton import Options
from tests.keys import slot_key
from tests.unit.make import desired, frontend

pytestmark = pytest.mark.lab

A, B, C, D, E, F = (f"10.0.0.{last}:8080" for last in range(1, 7))
WEB = partial(frontend, "10.96.0.9:80")
OTHER = frontend("10.96.0.8:80", [A, B], "other")
KEY = frontend_key(parse_address("10.96.0.9"), Protocol.TCP, 80)
SLOT = slot_key(frontend_socket(KEY), 0)
RANGE = range_key(KEY, parse_address("192.0.2.0"), parse_address("192.0.2.255"))


class Row(NamedTuple):
    """Successive frontends, and a change by another program before the last ones."""

    before: list[list[Frontend]]
    script: str
    after: list[Frontend]
    errno: int
    refused: list[tuple[SetName, bytes, str]]
    """Set, key and owner."""
    text: str
    """The end of the error message."""


ROWS = {
    "a missing chain": Row(
        [[WEB([A]), OTHER], [OTHER]],
        "delete chain ip kproxy lb-1",
        [WEB([A]), OTHER],
        errno.ENOENT,
        [(SetName.SERVICES, KEY, "default/web")],
        "No such file or directory: services { 10.96.0.9 . tcp . 80 } of default/web.",
    ),
    "an element with another value": Row(
        [[OTHER]],
        "add element ip kproxy services { 10.96.0.9 . tcp . 80 : drop }",
        [WEB([A, B]), OTHER],
        errno.EEXIST,
        [(SetName.SERVICES, KEY, "default/web")],
        "File exists: services { 10.96.0.9 . tcp . 80 } of default/web.",
    ),
    "an overlapping range": Row(
        [[WEB([A, B]), OTHER]],
        "add element ip kproxy source-ranges { 10.96.0.9 . tcp . 80 . 192.0.2.200-192.0.3.0 }",
        [WEB([A, B], ranges=["192.0.2.0/24"]), OTHER],
        errno.EEXIST,
        [(SetName.SOURCE_RANGES, RANGE, "default/web")],
        "source-ranges { 10.96.0.9 . tcp . 80 . 192.0.2.0-192.0.2.255 } of default/web.",
    ),
    "missing elements": Row(
        [[WEB([A, B]), OTHER]],
        "delete element ip kproxy endpoints-tcp { 10.96.0.9 . 80 . 0 }; "
        "delete element ip kproxy services { 10.96.0.9 . tcp . 80 }; ",
        [WEB([B, C, D, E, F]), OTHER],
        errno.ENOENT,
        [(SetName.SERVICES, KEY, "default/web"), (SetName.ENDPOINTS_TCP, SLOT, "default/web")],
        "services { 10.96.0.9 . tcp . 80 } of default/web, "
        "endpoints-tcp { 10.96.0.9 . 80 . 0 } of default/web.",
    ),
    "a missing element of a removed frontend": Row(
        [[WEB([A, B]), OTHER]],
        "delete element ip kproxy cluster-ips { 10.96.0.9 }",
        [OTHER],
        errno.ENOENT,
        [(SetName.CLUSTER_IPS, parse_address("10.96.0.9"), "default/web")],
        "cluster-ips { 10.96.0.9 } of default/web.",
    ),
    "a missing table": Row(
        [[OTHER]],
        "delete table ip kproxy",
        [WEB([A, B]), OTHER],
        errno.ENOENT,
        [(name, b"", "") for name in (SetName.SERVICES, SetName.ENDPOINTS_TCP, SetName.CLUSTER_IPS)],
        "No such file or directory: services, endpoints-tcp, cluster-ips.",
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_the_error_of_a_refused_transaction(row: Row) -> None:
    error, is_repaired = in_fresh_namespace(partial(outcome, row))
    assert error.errno == row.errno
    assert error.refused == tuple(
        RefusedElement("ip", name, key, owner=owner) for name, key, owner in row.refused
    )
    assert str(error).endswith(row.text)
    assert is_repaired


def outcome(row: Row) -> tuple[TransactionError, bool]:
    """Return the error, and whether the table is correct after a `reconcile`."""
    with Netlink() as netlink:
        dataplane = Dataplane(netlink, Family.IPV4, Options())
        held = desired()
        dataplane.reconcile(held)
        for frontends in row.before:
            dataplane.change(difference(held, desired(*frontends)))
            held = desired(*frontends)
        subprocess.run(["nft", row.script], check=True)
        with pytest.raises(TransactionError) as caught:
            dataplane.change(difference(held, desired(*row.after)))
        dataplane.reconcile(desired(*row.after))
        return caught.value, not Dataplane(netlink, Family.IPV4, Options()).reconcile(desired(*row.after))
