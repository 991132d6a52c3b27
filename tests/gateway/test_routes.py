"""The table of requests to Gateways with HTTPRoutes, each row through one running HAProxy."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from msgspec.structs import replace

from kproxy.controlplane.gateways import with_built_in
from kproxy.controlplane.ledger import NOTHING
from kproxy.decode import Decoded, Document, decode
from kproxy.gateway.certificates import Checks, self_signed
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.findings import findings
from kproxy.gateway.core.httproute import http_certificates, http_routing, with_certificates
from kproxy.gateway.core.ingress import Checked, Objects
from kproxy.gateway.core.render import Rendered, render, with_endpoints
from kproxy.model import NamespacedName, Node, parse_address
from tests.gateway.echo import Echo
from tests.gateway.rows import Row, parse, rows
from tests.gateway.running import check, serving, write
from tests.gateway.world import ADDRESSES, HERE, SERVICES, secret, service
from tests.ports import kept_ports
from tests.resolution import resolve
from tests.unit.make import RANGES

TABLE = rows(HERE / "routes.txt")
NODE = Node("n1", (), (parse_address("127.0.0.1"),))
OF_SHOP = {"granted": "admin", "refused": "admin"}
"""Services of the namespace shop, and the Service whose endpoints they have."""
REQUESTS = 400
PORTS = ("http", "https", "hosts", "other", "any")


class Gateway(NamedTuple):
    """What runs."""

    ports: dict[str, int]
    rendered: Rendered
    warnings: list[str]


def decoded(ports: dict[str, int]) -> Decoded:
    """The objects of routes.yaml, of the Services, and of certificates."""
    text = (HERE / "routes.yaml").read_text()
    text = re.sub(r"port: ([A-Z]+)", lambda found: f"port: {ports[found[1].lower()]}", text)
    objects: list[Any] = list(yaml.safe_load_all(text))
    addresses = {name: address.replace("127.1.", "10.0.") for address, name in ADDRESSES.items()}
    for name in SERVICES:
        objects += service(name, addresses.get(name, ""))
    for name, of in OF_SHOP.items():
        for each in service(name, addresses[of]):
            each["metadata"]["namespace"] = "shop"
            objects.append(each)
    headless, slice_ = service("headless", addresses["bar"])
    headless["spec"]["clusterIP"] = "None"
    slice_["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    objects += [
        headless,
        slice_,
        secret("secure", *self_signed(["secure.test"])),
        secret("wildcard", *self_signed(["*.tls.test"])),
    ]
    found = decode(Document("routes.yaml", json.loads(json.dumps(each))) for each in objects)
    assert (found.problems, found.warnings) == ([], [])
    return found


def rendered(ports: dict[str, int], failing: int) -> tuple[Rendered, list[str]]:
    """Return the configuration, and the warnings about objects."""
    found = decoded(ports)
    gateways = with_certificates(with_built_in(found.gateways), found.state.secrets)
    resolved = resolve(found, NOTHING, RANGES, NODE)
    services = Services(resolved.services, resolved.slices)
    objects = Objects((), services, secrets=found.state.secrets, gateways=gateways, local=NODE.addresses)
    checked = Checks().check(http_certificates(gateways), found.state.secrets, time.time())
    routing = replace(http_routing(objects, checked), failing_port=failing)
    warnings = [str(each._replace(source="")) for each in findings(gateways, resolved.services)]
    return render(routing), warnings


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with kept_ports(len(PORTS) + 1) as (*numbers, failing):
        ports = dict(zip(PORTS, numbers, strict=True))
        found, warnings = rendered(ports, failing)
        folder = tmp_path_factory.mktemp("haproxy")
        with serving(found.configuration, folder, ports.values(), Echo(ADDRESSES)):
            yield Gateway(ports, found, warnings)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: " ".join(row.text.split()))
def test_a_request_gets_where_its_row_says(gateway: Gateway, row: Row) -> None:
    ports = {"SECURE": str(gateway.ports["https"]), "HTTP": str(gateway.ports["http"])}
    wanted = [row.result, *row.checks]
    for name, port in ports.items():
        wanted = [each.replace(name, port) for each in wanted]
    assert row.outcome(row.send(gateway.ports)) == tuple(wanted)


@pytest.mark.parametrize(
    ("name", "certificate"),
    [
        ("", "secure.test"),
        ("secure.test", "secure.test"),
        ("other.test", "secure.test"),
        ("x.tls.test", "*.tls.test"),
    ],
)
def test_a_listener_without_hostname_shows_its_certificate_to_all(
    gateway: Gateway, name: str, certificate: str
) -> None:
    """`name`: the name that the client sends, "" for none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", gateway.ports["any"]), 20) as plain,
        context.wrap_socket(plain, server_hostname=name or None) as secure,
    ):
        shown = secure.getpeercert(binary_form=True)
    assert shown == ssl.PEM_cert_to_DER_cert(leaf(gateway, certificate))


def leaf(gateway: Gateway, name: str) -> str:
    """Return a certificate of the configuration in PEM."""
    file = {"secure.test": "default_secure.pem", "*.tls.test": "default_wildcard.pem"}[name]
    pem = gateway.rendered.configuration.certificates[file].decode()
    return pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"


def test_requests_are_shared_by_weight(gateway: Gateway) -> None:
    """The share of a Service that does not exist gets status 500. Each is within five standard deviations."""
    row = parse("backends.test /weights -> foo")
    found = Counter(row.outcome(row.send(gateway.ports))[0] for _ in range(REQUESTS))
    assert found.keys() == {"foo", "bar", "500"}
    for result, share in (("foo", 0.7), ("bar", 0.2), ("500", 0.1)):
        deviation = (REQUESTS * share * (1 - share)) ** 0.5
        assert abs(found[result] - REQUESTS * share) <= 5 * deviation, found


def test_every_route_is_rendered_and_haproxy_has_nothing_against_it(gateway: Gateway, tmp_path: Path) -> None:
    assert gateway.rendered.problems == []
    assert check(write(gateway.rendered.configuration, tmp_path)) == ""


def test_warnings_name_object_and_field(gateway: Gateway) -> None:
    not_supported = "RequestMirror is not supported: the status of requests is 500"
    of_backends = "HTTPRoute default/backends: spec.rules"
    assert sorted(gateway.warnings) == [
        "Gateway default/edge: spec.listeners[7]: there is no Secret default/missing",
        "Gateway default/edge: spec.listeners[8]: there is no Secret default/missing",
        f"{of_backends}[0].backendRefs[0]: Service default/missing not found",
        f"{of_backends}[10].backendRefs[2]: Service default/missing not found",
        f"{of_backends}[1].backendRefs[0]: Service default/foo has no port 81/tcp",
        f"{of_backends}[2].backendRefs[0]: Pool.example.com default/foo is not a Service",
        f"{of_backends}[7].backendRefs[0]: no ReferenceGrant in namespace shop permits the reference to "
        "Service shop/refused",
        f"HTTPRoute default/filters: spec.rules[5].filters: {not_supported}",
        "HTTPRoute default/filters: spec.rules[6].backendRefs[0].filters: are not supported: the status of "
        "requests is 500",
        "HTTPRoute default/no-intersection: spec.parentRefs[0]: no hostname of the route matches "
        "'*.foo.test' of listener other-wild",
        "HTTPRoute shop/from-shop: spec.parentRefs[1]: listener http, none, exact, below, wild, other-wild, "
        "secure, secure-wild, broken of Gateway default/edge does not allow namespace shop",
    ]


def test_a_refused_service_gets_no_requests_after_its_endpoints_changed() -> None:
    """Without a ReferenceGrant, the status stays 500 whatever the endpoints of the Service are."""
    found = decoded(dict.fromkeys(PORTS, 80))
    gateways = with_certificates(with_built_in(found.gateways), found.state.secrets)
    resolved = resolve(found, NOTHING, RANGES, NODE)
    objects = Objects((), Services(resolved.services, resolved.slices), gateways=gateways)
    checked = dict.fromkeys(http_certificates(gateways), Checked(reason="is not checked"))
    before = render(http_routing(objects, checked))
    refused = NamespacedName("shop", "refused")
    services = Services(resolved.services, {**resolved.slices, refused: ()})
    changed = dict.fromkeys(resolved.slices, ())
    assert refused not in before.backends
    assert with_endpoints(before, services, {refused}) == before
    emptied = with_endpoints(before, Services(resolved.services, changed), set(changed))
    wanted = render(http_routing(objects._replace(services=Services(resolved.services, changed)), checked))
    assert emptied.configuration.backends == wanted.configuration.backends
