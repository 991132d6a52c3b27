"""What is fuzzed: functions that read bytes, the exceptions that they declare, and inputs to begin with.

Each target reads as the program does, and goes on with the result: objects are settled, compiled, encoded and
described. So a value that is accepted and breaks a later step is found, too.
"""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from kproxy.controlplane.gateways import with_built_in
from kproxy.controlplane.hold import InUse, hold
from kproxy.controlplane.ledger import NOTHING, Allocations, Claim, Resource
from kproxy.controlplane.settle import settle
from kproxy.decode import Decoded, Document, decode
from kproxy.decode.text import from_json
from kproxy.dns.core.respond import Outside, respond
from kproxy.dns.core.wire import Query
from kproxy.dns.core.wire import parse as parse_query
from kproxy.dns.core.zone import Zone
from kproxy.dns.relay import relay
from kproxy.gateway.certificates import examine, self_signed
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.findings import findings
from kproxy.gateway.core.ingress import Objects, Ports
from kproxy.gateway.core.l4 import with_gateways
from kproxy.gateway.core.views import listing, route_rows
from kproxy.gateway.renderer import Renderer
from kproxy.intake.requests import RequestError, _Parser
from kproxy.kernel.netlink.core import codec, elements, route
from kproxy.model import HTTPGetAction, NamespacedName, Node, ProbePort
from kproxy.observe.http import HttpServer, Request, Response
from kproxy.printable import printable
from kproxy.probes.core.readiness import ProbeResult
from kproxy.probes.network import NetworkProbes
from kproxy.problems import InvalidResponseError, KproxyError, Problem
from kproxy.resolve.claims import all_frontends
from kproxy.settings.text import SocketAddress
from kproxy.show.describe.context import Context
from kproxy.show.describe.gateways import describe_gateway, describe_route
from kproxy.show.describe.service import describe_service
from kproxy.show.describe.workload import describe_workload
from kproxy.show.gateways import shown
from kproxy.show.snapshot import Snapshot, encode
from kproxy.show.snapshot import decode as decode_snapshot
from kproxy.show.workloads import workload_manifest
from kproxy.sources.cluster.core.cache import Cache
from kproxy.sources.cluster.core.events import ObjectChange
from kproxy.sources.cluster.core.formats import Json, ProtobufFormat
from kproxy.sources.cluster.core.resources import SERVICE_CIDRS, SERVICES, SLICES, node_resource
from kproxy.sources.cluster.credentials import Credentials
from kproxy.sources.configuration import read_configuration
from kproxy.sources.core.inventory import manifest_inventory
from kproxy.sources.documents import parse
from kproxy.sources.engines.core.answers import Inspected
from kproxy.sources.engines.core.merge import together, with_found_pods
from kproxy.sources.engines.core.pods import Choice, PodManifests
from kproxy.sources.engines.core.streams import Streams
from kproxy.state.store import Store
from kproxy.table.script import script
from kproxy.table.skeleton import Options
from tests.apiserver import protobuf
from tests.unit.make import NODE, RANGES

CORPUS = Path(__file__).parent / "corpus"
RESOURCES = (SERVICES, SLICES, node_resource("n1"))
PROTOBUF_RESOURCES = (*RESOURCES, SERVICE_CIDRS)
A_RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX: y\r\n\r\n"
A_STATUS = (
    b'{"kind":"Status","apiVersion":"v1","message":"later","details":{"retryAfterSeconds":1},"code":429}'
)


class Target(NamedTuple):
    """A function that reads bytes."""

    name: str
    read: Callable[[bytes], object]
    declared: tuple[type[Exception], ...] = ()
    """The exceptions that its callers expect."""
    made: Callable[[], bytes] | None = None
    """Makes an input to begin with, besides those of the corpus."""

    def seeds(self) -> list[bytes]:
        """Return the inputs to begin with."""
        files = sorted((CORPUS / self.name).glob("*"))
        return [path.read_bytes() for path in files] + ([self.made()] if self.made else [])


def manifests(data: bytes) -> None:
    """Read a file, and do with its objects what a sync and `describe` do."""
    found = list(parse("f", data))
    decoded = decode(item for item in found if isinstance(item, Document))
    decoded = replace(decoded, gateways=with_built_in(decoded.gateways))
    problems = [item for item in found if isinstance(item, Problem)] + decoded.problems + decoded.warnings
    settled = settle(decoded, NOTHING, RANGES, NODE)
    in_use = with_gateways(hold(InUse({}, {}), settled), decoded.gateways)
    inventory = manifest_inventory(decoded.state, in_use, NODE, decoded.gateways)
    resolved = all_frontends(inventory.owners.values(), inventory.owned_slices, NODE)
    problems += findings(decoded.gateways, in_use.services)
    "".join(script(resolved.frontends, Options(), (1, 0, 6)))
    snapshot = Snapshot(inventory, resolved.frontends, problems + resolved.problems, NODE)
    context = Context(decode_snapshot(encode(snapshot)), 0)
    texts = [describe_service(service, context) for service in context.objects.services]
    texts += [describe_gateway(each, context) for each in shown("Gateway")(context.objects)]
    texts += [describe_route(each, context) for each in shown("TCPRoute")(context.objects)]
    texts += [describe_workload(view, context) for view in context.objects.workloads]
    texts.append(_gateway(decoded, in_use))
    _read_again(context)
    assert all(line.isprintable() for text in texts for line in text.split("\n"))
    assert all(printable(str(problem)).isprintable() for problem in problems)


def _read_again(context: Context) -> None:
    """Check that the manifests of workloads are read as they are printed."""
    made = [workload_manifest(view) for view in context.objects.workloads]
    again = decode(Document("f", msgspec.Raw(msgspec.json.encode(each))) for each in made)
    assert [workload.kind for workload in again.state.workloads] == [each["kind"] for each in made]


def engine(data: bytes) -> None:
    """Read the inspections of containers, and make pods of them."""
    found = from_json(data, list[Inspected])
    texts = PodManifests(Choice("docker", "n1")).of(found, {}, frozenset())
    pods = together("docker", [decode([Document("docker", msgspec.Raw(text))]) for text in texts.values()])
    merged = with_found_pods(decode(()), [pods])
    settle(merged, NOTHING, RANGES, NODE)
    assert all(printable(str(problem)).isprintable() for problem in merged.problems)


def output(data: bytes) -> None:
    """Read the output of a command in a container, in two pieces."""
    whole, halves = Streams(1000), Streams(1000)
    whole.add(data)
    halves.add(data[: len(data) // 2])
    halves.add(data[len(data) // 2 :])
    assert whole.output == halves.output
    assert len(whole.output) <= 1000


def _gateway(decoded: Decoded, in_use: InUse) -> str:
    """Return the configuration of HAProxy for the Ingresses."""
    state, services = decoded.state, Services(in_use.services, in_use.slices)
    objects = Objects(state.ingresses, services, state.ingress_classes, state.secrets)
    found = Renderer(Ports()).render(objects, 0)
    assert all(printable(str(problem)).isprintable() for problem in (*found.problems, *found.warnings))
    return listing(found.configuration) + "".join(map(str, route_rows(found.routing)))


def certificate(data: bytes) -> None:
    """Look at a certificate, whose key is in the same bytes."""
    found = examine(data, data)
    assert bool(found.pem) != bool(found.reason)


def configuration(data: bytes) -> None:
    """Read a configuration of kube-proxy."""
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        file.write(data)
        file.flush()
        read_configuration(file.name)


def kubeconfig(data: bytes) -> None:
    """Read a kubeconfig. No seed has a plugin, which would be run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        path.write_bytes(data)
        credentials = Credentials(path)
        credentials.load()
        credentials.authorization()


def _applied(changes: Iterable[ObjectChange]) -> None:
    cache = Cache()
    for change in changes:
        cache.apply(change)
    cache.take()
    cache.held()
    for problem in (*cache.problems(), *cache.warnings()):
        assert printable(str(problem)).isprintable()
    services = {name: service for name, service in cache.services().items() if service.wants_cluster_ip}
    all_frontends(services.values(), cache.all_slices(), NODE)


def page(data: bytes) -> None:
    """Read a page of a list, of each kind."""
    for resource in RESOURCES:
        _applied(Json().read_page(resource, data)[1])


def line(data: bytes) -> None:
    """Read a line of a watch, of each kind."""
    for resource in RESOURCES:
        event = Json().read_event(resource, data)
        _applied([event.change] if event.change else [])


def frame(data: bytes) -> None:
    """Read an event of a watch in protobuf, of each kind."""
    for resource in PROTOBUF_RESOURCES:
        event = ProtobufFormat().read_event(resource, data)
        _applied([event.change] if event.change else [])


def protobuf_page(data: bytes) -> None:
    """Read a page of a list in protobuf, of each kind."""
    for resource in PROTOBUF_RESOURCES:
        _applied(ProtobufFormat().read_page(resource, data)[1])


READERS = (
    elements.read_element,
    elements.read_counter,
    elements.read_packets,
    elements.read_expiration,
    lambda content: list(elements.read_elements(content)),
)


def netlink(data: bytes) -> None:
    """Read a datagram of netlink as each kind of message. The kernel is trusted, but it has to end."""
    for message in codec.messages(memoryview(data)):
        with suppress(struct.error, LookupError, ValueError):
            codec.read_error(message)
        for read in (route.read_address, route.read_default_route):
            with suppress(struct.error, LookupError, ValueError):
                read(message.content)
        for _, content in codec.attributes(message.content):
            for read_part in READERS:
                with suppress(struct.error, LookupError, ValueError):
                    read_part(content)


def database(data: bytes) -> None:
    """Load a database of any content, and save to it."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        store.path.write_bytes(data)
        with suppress(KproxyError):
            store.readiness()
        held = store.load()
        store.save(held, Allocations({}, held.released))


def a_database() -> bytes:
    """Return the bytes of a database."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        claim = Claim(NamespacedName("default", "web"), "ip")
        store.save(NOTHING, Allocations({claim: Resource("ip", 1)}, {}))
        return store.path.read_bytes()


def a_snapshot() -> bytes:
    """Return the bytes of a snapshot."""
    data = next((CORPUS / "manifests").glob("service*")).read_bytes()
    decoded = decode(item for item in parse("f", data) if isinstance(item, Document))
    in_use = hold(InUse({}, {}), settle(decoded, NOTHING, RANGES, NODE))
    return encode(Snapshot(manifest_inventory(decoded.state, in_use, NODE), [], [], Node("n1")))


@contextmanager
def _unexpected() -> Iterator[list[str]]:
    """Collect what a server warns of: an error that it did not expect."""
    found: list[str] = []
    yield found
    assert not found, found


def request(data: bytes) -> None:
    """Send bytes to the server of `/healthz` and `/metrics`, which answers the next client as well."""
    with _unexpected() as warnings:
        asyncio.run(_request(data, warnings))


async def _request(data: bytes, warnings: list[str]) -> None:
    def handler(request: Request) -> Response:
        return Response(200, (), request.path.encode())

    server = HttpServer(SocketAddress("127.0.0.1", 0), "test", handler, warnings.append)
    server.open()
    try:
        for sent in (data, b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.address.port)
            with suppress(ConnectionError):
                writer.write(sent)
                writer.write_eof()
                async with asyncio.timeout(30):
                    answer = await reader.read()
            writer.close()
        assert answer.endswith(b"/next")
    finally:
        server.close()


def response(data: bytes) -> None:
    """Answer a readiness probe."""
    assert isinstance(asyncio.run(_response(data)), ProbeResult)


def api_response(data: bytes) -> None:
    """Read a response of an API server, in two pieces."""
    parser = _Parser()
    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
        parser.feed(part)
        parser.take()
    parser.end()


async def _response(data: bytes) -> ProbeResult:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    probes = NetworkProbes()
    port = server.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(30):
            action = HTTPGetAction(port=ProbePort(port, port), path="/x")
            return await probes.http_get(action, "127.0.0.1", probes.allowance())
    finally:
        await probes.close()
        server.close()


DNS_QUERY = b"\0\1\1\0\0\1\0\0\0\0\0\0\3www\7example\0\0\1\0\1"
DNS_REPLY = DNS_QUERY[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + DNS_QUERY[12:]
DNS_ANSWER = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\xc0\0\2\1"


def dns_query(data: bytes) -> None:
    """Answer a message over UDP and over TCP."""
    zone = Zone("cluster.local", NODE.node_port_addresses, RANGES.service_cidrs)
    for over_tcp in (False, True):
        found = respond(zone, data, over_tcp, recursive=True)
        assert not isinstance(found, bytes) or found[:2] == data[:2]


def dns_reply(data: bytes) -> None:
    """Pass on what an upstream server sent."""
    query = parse_query(DNS_QUERY)
    assert isinstance(query, Query)
    for over_tcp in (False, True):
        made = relay(Outside(query), data, over_tcp)
        assert made[:2] == DNS_QUERY[:2]
        assert len(made) <= query.limit(over_tcp)


TARGETS = (
    Target("manifests", manifests),
    Target("engine", engine, (msgspec.DecodeError,)),
    Target("output", output, made=lambda: b"\1\0\0\0\0\0\0\3out\2\0\0\0\0\0\0\5error"),
    Target("certificate", certificate, made=lambda: b"".join(self_signed(["a.test"]))),
    Target("configuration", configuration, (KproxyError,)),
    Target("kubeconfig", kubeconfig, (KproxyError,)),
    Target("page", page, (InvalidResponseError,)),
    Target("line", line, (InvalidResponseError,)),
    Target("frame", frame, (InvalidResponseError,)),
    Target("protobuf-page", protobuf_page, (InvalidResponseError,)),
    Target("status", Json().read_status),
    Target("protobuf-status", ProtobufFormat().read_status, made=lambda: protobuf.response(A_STATUS)),
    Target("snapshot", decode_snapshot, (KproxyError,), a_snapshot),
    Target("netlink", netlink, (ValueError,)),
    Target("database", database, (KproxyError,), a_database),
    Target("request", request),
    Target("response", response),
    Target("api-response", api_response, (RequestError,), lambda: A_RESPONSE),
    Target("dns-query", dns_query, made=lambda: DNS_QUERY),
    Target("dns-reply", dns_reply, made=lambda: DNS_REPLY + DNS_ANSWER),
)
