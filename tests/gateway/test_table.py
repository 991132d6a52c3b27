"""The table of requests, each row through one running HAProxy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from kproxy.gateway.core.ingress import Ports, Routed
from kproxy.gateway.core.render import Rendered, render
from tests.gateway.client import exchange, head
from tests.gateway.echo import Echo
from tests.gateway.rows import Row, rows
from tests.gateway.running import check, serving, write
from tests.gateway.world import ADDRESSES, HERE, decoded, ingress_routes, routing
from tests.ports import kept_ports

TABLE = rows(HERE / "rows.txt")


class Gateway(NamedTuple):
    """What runs."""

    ports: dict[str, int]
    rendered: Rendered
    routed: Routed


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with kept_ports(4) as (http, https, api, failing):
        routed = ingress_routes(decoded(), Ports(http, https, "127.0.0.1"), time.time())
        rendered = render(routing(routed, api, failing))
        ports = {"http": http, "https": https, "api": api}
        folder = tmp_path_factory.mktemp("haproxy")
        with serving(rendered.configuration, folder, ports.values(), Echo(ADDRESSES)):
            yield Gateway(ports, rendered, routed)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: " ".join(row.text.split()))
def test_a_request_gets_where_its_row_says(gateway: Gateway, row: Row) -> None:
    wanted = tuple(each.replace("HTTPS", str(gateway.ports["https"])) for each in (row.result, *row.checks))
    assert row.outcome(row.send(gateway.ports)) == wanted


@pytest.mark.parametrize("count", [5000, 5450, 5455, 5460, 5465, 6000, 7500])
def test_the_end_of_a_long_path_counts(gateway: Gateway, count: int) -> None:
    """HAProxy cuts a text that it makes at 16 KiB. Escaped, each quote has three characters."""
    request = head("admin.test", "/" + '"' * count + "/../admin", ["Connection: close"])
    assert exchange(gateway.ports["http"], request).status == 400


def test_a_redirect_needs_a_host(gateway: Gateway) -> None:
    """HTTP/1.0 has requests without one."""
    assert exchange(gateway.ports["api"], head("", "/to-https", [], version="1.0")).status == 400


def test_the_table_has_rows_of_all_kinds() -> None:
    assert len(TABLE) >= 80
    assert {row.scheme for row in TABLE} == {"http", "https", "api"}


def test_every_route_is_rendered_and_haproxy_has_nothing_against_it(gateway: Gateway, tmp_path: Path) -> None:
    assert gateway.rendered.problems == []
    assert check(write(gateway.rendered.configuration, tmp_path)) == ""


def test_problems_name_object_and_field(gateway: Gateway) -> None:
    problems = [str(each) for each in gateway.routed.problems]
    assert problems == [
        "world.yaml: Ingress default/bad-certificate: spec.tls[0].secretName: "
        "Secret default/bad: the key belongs to another certificate; left out: bad.test"
    ]
    warnings = sorted(f"{each.object}: {each.message}" for each in gateway.routed.warnings)
    assert warnings == [
        "Ingress default/hosts: there is no Service default/missing: the status is 503",
        "Ingress default/other-class: class 'other' is not kproxy's. An IngressClass with the controller "
        "kproxy.io/ingress-controller makes it so",
    ]
