"""Names outside the zone: which servers are asked, what counts as their reply, and what a client gets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from kproxy.dns import host, upstream
from kproxy.dns import relay as relay_module
from kproxy.dns import resolver as resolving
from kproxy.dns.host import HostServers, may_recurse
from kproxy.dns.resolver import Resolver
from kproxy.dns.server import _both
from kproxy.dns.upstream import Upstream
from kproxy.limits import DNS_UPSTREAM_TRIES
from kproxy.model import parse_address
from kproxy.settings.text import SocketAddress, networks
from tests.dnszone.table import world

NAME = "www.example.com."
ADDRESS = "192.0.2.80"
ALIAS = "ext.default.svc.cluster.local."
CLIENT = "127.0.0.1"
OTHER = "127.0.0.2"
"""Another client that may ask for other names."""
STUB = "nameserver 127.0.0.53\n"
Handler = Callable[[dns.message.Message, bool], list[bytes]]
"""Takes a query, and whether it came over TCP. Returns the messages to send back."""


def answer(query: dns.message.Message, over_tcp: bool = False, count: int = 1) -> list[bytes]:
    """The usual reply of a server: addresses for `NAME`."""
    reply = dns.message.make_response(query, recursion_available=True)
    data = [f"192.0.2.{80 + number}" for number in range(count)]
    reply.answer = [dns.rrset.from_text(query.question[0].name, 60, "IN", "A", *data)]
    return [wire(reply)]


def wire(message: dns.message.Message) -> bytes:
    return message.to_wire(max_size=65535)


def code_only(code: str) -> Handler:
    def handle(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        reply = dns.message.make_response(query, recursion_available=True)
        reply.set_rcode(dns.rcode.from_text(code))
        return [wire(reply)]

    return handle


def silent(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
    return []


def garbage(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
    """A reply to the question whose answer section is cut."""
    return [answer(query)[0][:-14]]


def looping(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
    """A reply whose answer has a compressed name that points to itself."""
    head = answer(query)[0][: wire(query).index(b"\0\0\1\0\1") + 5]
    return [head + (0xC000 | len(head)).to_bytes(2, "big") + b"\0\1\0\1\0\0\0\5\0\4\1\2\3\4"]


def spoofed(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
    """What others may send before the reply: another ID, another question, no reply, and nonsense."""
    right = answer(query)[0]
    other_id = bytes([right[0] ^ 1]) + right[1:]
    other = dns.message.make_query("evil.example.", "A")
    other.id = query.id
    other_question = answer(other)[0]
    return [other_id, other_question, wire(query), b"", b"x" * 600, right]


def truncated(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
    if over_tcp:
        return answer(query, count=100)
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.TC
    return [wire(reply)]


def too_long(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
    """Over UDP, a longer reply than the query allows, with other addresses than over TCP."""
    return answer(query, count=100 if over_tcp else 99)


def nonsense_over_tcp(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
    """Over TCP, something else before the reply."""
    return [b"\0" * 1000, *truncated(query, over_tcp)] if over_tcp else truncated(query, over_tcp)


class Server:
    """An upstream server on loopback."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.queries: list[dns.message.Message] = []
        self.ports: list[int] = []

    async def udp(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data, client = await loop.sock_recvfrom(sock, 4096)
            self.queries.append(dns.message.from_wire(data))
            self.ports.append(client[1])
            for reply in self.handle(self.queries[-1], False):
                await loop.sock_sendto(sock, reply, client)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        query = dns.message.from_wire(await reader.readexactly(length))
        for reply in self.handle(query, True):
            writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()


@asynccontextmanager
async def serving(*handlers: Handler) -> AsyncIterator[tuple[Resolver, list[Server]]]:
    """Yield a resolver with these upstream servers."""
    servers = [Server(handle) for handle in handlers]
    addresses, tasks, listeners, sockets = [], [], [], []
    for server in servers:
        tcp, sock = _both(SocketAddress(CLIENT, 0))
        listener = await asyncio.start_server(server.tcp, sock=tcp)
        port = sock.getsockname()[1]
        tasks.append(asyncio.create_task(server.udp(sock)))
        listeners.append(listener)
        sockets.append(sock)
        addresses.append(SocketAddress(CLIENT, port))
    found = Resolver(world(), upstream=Upstream(lambda: addresses), may_recurse=(CLIENT, OTHER).__contains__)
    found.ready = True
    try:
        yield found, servers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sock in sockets:
            sock.close()
        for listener in listeners:
            listener.close()


def run(test: Callable[[Resolver, list[Server]], Awaitable[None]], *handlers: Handler) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30), serving(*handlers) as (resolver, servers):
            await test(resolver, servers)

    asyncio.run(bounded())


async def ask(
    resolver: Resolver, name: str = NAME, kind: str = "A", over_tcp: bool = False, edns: int = -1
) -> dns.message.Message:
    query = dns.message.make_query(name, kind, use_edns=edns)
    reply = resolver.answer(query.to_wire(), CLIENT, over_tcp)
    answered = reply if isinstance(reply, bytes) or reply is None else await reply
    assert answered is not None
    found = dns.message.from_wire(answered)
    assert query.is_response(found)
    return found


def data(reply: dns.message.Message) -> list[str]:
    return [str(each) for rrset in reply.answer for each in rrset]


@pytest.mark.parametrize("handle", [answer, spoofed])
@pytest.mark.parametrize("edns", [-1, 0])
def test_a_name_outside_is_asked_for(handle: Handler, edns: int) -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        reply = await ask(resolver, "WWW.example.COM.", edns=edns)
        assert data(reply) == [ADDRESS]
        assert reply.flags & dns.flags.RA
        assert not reply.flags & dns.flags.AA
        assert reply.edns == edns

    run(test, handle)


@pytest.mark.parametrize("kind", ["AAAA", "SVCB", "HTTPS", "TYPE90", "TYPE16705"])
def test_all_types_are_asked_for(kind: str) -> None:
    """Some have numbers whose bytes are those of letters."""

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        reply = await ask(resolver, "WWW.Example.com.", kind)
        assert reply.rcode() == dns.rcode.NOERROR
        assert len(servers[0].queries) == 1

    run(test, code_only("NOERROR"))


@pytest.mark.parametrize("code", ["FORMERR", "NOTIMP"])
@pytest.mark.parametrize("edns", [-1, 0])
def test_a_server_that_does_not_know_edns_is_asked_again_without_it(code: str, edns: int) -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
        if query.edns < 0:
            return truncated(query, over_tcp)
        reply = dns.message.make_response(query)
        reply.use_edns(False)
        reply.set_rcode(dns.rcode.from_text(code))
        return [wire(reply)]

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        assert len(data(await ask(resolver, over_tcp=True, edns=edns))) == 100
        assert [query.edns for query in servers[0].queries] == [0, -1]

    run(test, handle)


def test_each_query_has_its_own_id_and_port() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        for number in range(20):
            await ask(resolver, f"host-{number}.example.")
        assert len({query.id for query in servers[0].queries}) > 15
        assert len(set(servers[0].ports)) > 15

    run(test, answer)


@pytest.mark.parametrize("first", [silent, code_only("SERVFAIL"), code_only("REFUSED")])
def test_another_server_is_asked_if_one_has_no_answer(
    first: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "DNS_UPSTREAM_SECONDS", 0.2)

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        assert data(await ask(resolver)) == [ADDRESS]
        asked = len(servers[0].queries)
        assert data(await ask(resolver, "other.example.")) == [ADDRESS]
        assert len(servers[0].queries) == asked  # the server that answered is asked first

    run(test, first, answer)


@pytest.mark.parametrize("only", [silent, garbage, looping])
def test_without_a_usable_reply_the_query_fails(only: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DNS_UPSTREAM_SECONDS", 0.05)

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        reply = await ask(resolver)
        assert (reply.rcode(), data(reply)) == (dns.rcode.SERVFAIL, [])

    run(test, only)


def test_a_reply_without_records_is_passed_on() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        assert (await ask(resolver)).rcode() == dns.rcode.NXDOMAIN
        assert len(servers[1].queries) == 0

    run(test, code_only("NXDOMAIN"), answer)


def test_a_truncated_reply_is_asked_for_over_tcp() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        assert len(data(await ask(resolver, over_tcp=True))) == 100
        assert len(data(await ask(resolver, edns=0))) < 100
        reply = await ask(resolver)
        assert reply.flags & dns.flags.TC
        assert len(wire(reply)) <= 512

    run(test, truncated)


def test_a_reply_that_is_too_long_for_udp_is_asked_for_over_tcp() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        assert len(data(await ask(resolver, over_tcp=True))) == 100

    run(test, too_long)


def test_a_server_that_sends_something_else_over_tcp_is_left() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        assert data(await ask(resolver, over_tcp=True)) == [ADDRESS]
        assert [len(server.queries) for server in servers] == [1, 1]

    run(test, nonsense_over_tcp, answer)


def test_a_long_reply_is_parsed_in_a_thread_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "DNS_LONG_REPLIES", 2)
    threads, parsing, enough = list[threading.Thread](), list[bool](), threading.Event()

    def relay(*arguments: Any) -> bytes:
        threads.append(threading.current_thread())
        parsing.append(True)
        assert len(parsing) == 1
        enough.wait(30)
        parsing.pop()
        return relay_module.relay(*arguments)

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        monkeypatch.setattr(resolving, "relay", relay)
        asked = [asyncio.create_task(ask(resolver, f"{n}.example.", over_tcp=True)) for n in range(5)]
        refused, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        while len(refused) < 3:
            refused, _ = await asyncio.wait(asked, timeout=0.01)
        enough.set()
        replies = await asyncio.gather(*asked)
        assert sorted(len(data(reply)) for reply in replies) == [0, 0, 0, 100, 100]
        assert threading.main_thread() not in threads

    run(test, truncated)


@pytest.mark.parametrize("limit", ["DNS_WAITING", "DNS_WAITING_OF_CLIENT"])
def test_no_more_queries_wait_than_the_limit(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DNS_UPSTREAM_SECONDS", 0.2)
    monkeypatch.setattr(resolving, limit, 10)

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        wires = [dns.message.make_query(NAME, "A").to_wire() for _ in range(50)]
        waiting, codes = [], []
        for each in wires:
            reply = resolver.answer(each, CLIENT, over_tcp=True)
            assert reply is not None
            if isinstance(reply, bytes):
                codes.append(reply[3] & 15)
            else:
                waiting.append(asyncio.ensure_future(reply))
                await asyncio.sleep(0)
        assert (len(waiting), codes) == (10, [dns.rcode.SERVFAIL] * 40)
        of_other = resolver.answer(wires[0], OTHER, over_tcp=True)
        assert isinstance(of_other, bytes) == (limit == "DNS_WAITING")
        if of_other is not None and not isinstance(of_other, bytes):
            waiting.append(asyncio.ensure_future(of_other))
        await asyncio.gather(*waiting)
        assert (await ask(resolver)).rcode() == dns.rcode.SERVFAIL  # there is room again
        assert len(servers[0].queries) == 2 * DNS_UPSTREAM_TRIES

    run(test, silent)


def test_equal_questions_at_the_same_time_are_one_query() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        names = [NAME, NAME.upper(), NAME, "other.example."]
        replies = await asyncio.gather(*(ask(resolver, name) for name in names))
        assert [data(reply) for reply in replies] == [[ADDRESS]] * 4
        assert len(servers[0].queries) == 2

    run(test, answer)


def test_a_server_that_asks_kproxy_again_causes_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DNS_UPSTREAM_SECONDS", 0.1)
    waiting: list[asyncio.Future[bytes]] = []

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        def again(query: dns.message.Message, over_tcp: bool) -> list[bytes]:
            looped = resolver.answer(wire(query), CLIENT, False)
            assert looped is not None
            assert not isinstance(looped, bytes)
            waiting.append(asyncio.ensure_future(looped))
            return []

        servers[0].handle = again
        assert (await ask(resolver)).rcode() == dns.rcode.SERVFAIL
        assert len(servers[0].queries) == DNS_UPSTREAM_TRIES
        await asyncio.gather(*waiting)

    run(test, silent)


def test_too_many_questions_fail_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "DNS_UPSTREAM_SECONDS", 0.2)
    monkeypatch.setattr(upstream, "DNS_UPSTREAM_QUERIES", 5)

    async def test(resolver: Resolver, servers: list[Server]) -> None:
        await asyncio.gather(*(ask(resolver, f"host-{number}.example.") for number in range(50)))
        assert len({str(query.question[0]) for query in servers[0].queries}) == 5

    run(test, silent)


def test_the_target_of_an_alias_is_asked_for() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        reply = await ask(resolver, ALIAS.upper())
        assert data(reply) == [NAME, ADDRESS]
        assert str(servers[0].queries[0].question[0].name) == NAME
        failed = await ask(resolver, ALIAS, "AAAA")
        assert failed.rcode() == dns.rcode.NOERROR

    run(test, answer)


def test_an_alias_to_a_name_that_does_not_exist() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        reply = await ask(resolver, ALIAS)
        assert (reply.rcode(), data(reply)) == (dns.rcode.NXDOMAIN, [NAME])

    run(test, code_only("NXDOMAIN"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda query: query.set_opcode(4), dns.rcode.NOTIMP),
        (lambda query: query.set_opcode(5), dns.rcode.NOTIMP),
        (lambda query: setattr(query, "flags", 0), dns.rcode.REFUSED),
    ],
    ids=["NOTIFY", "UPDATE", "no recursion desired"],
)
def test_only_queries_that_ask_for_it_leave(
    change: Callable[[dns.message.Message], object], code: dns.rcode.Rcode
) -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        query = dns.message.make_query(NAME, "A")
        change(query)
        reply = resolver.answer(query.to_wire(), CLIENT, False)
        assert isinstance(reply, bytes)
        assert reply[3] & 15 == code
        assert servers[0].queries == []

    run(test, answer)


def test_a_client_that_may_not_recurse_is_refused() -> None:
    async def test(resolver: Resolver, servers: list[Server]) -> None:
        for name, code in ((NAME, dns.rcode.REFUSED), (ALIAS, dns.rcode.NOERROR)):
            reply = resolver.answer(dns.message.make_query(name, "A").to_wire(), "192.0.2.1", False)
            assert isinstance(reply, bytes)
            assert reply[3] & 15 == code
            assert not reply[3] & 0x80  # RA
        assert servers[0].queries == []

    run(test, answer)


# --- the host's servers, and its clients ---


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of systemd-resolved."""
    path = tmp_path / "resolved.conf"
    monkeypatch.setattr(host, "OF_RESOLVED", path)
    return path


@pytest.mark.parametrize(
    ("text", "stub", "servers"),
    [
        ("", "", []),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.1\n", "", ["192.0.2.1:53"]),
        (STUB, "nameserver 192.0.2.2\nnameserver fd00::2\n", ["192.0.2.2:53", "[fd00::2]:53"]),
        (f"{STUB}nameserver 192.0.2.1\n", "nameserver 192.0.2.2\n", ["127.0.0.53:53", "192.0.2.1:53"]),
        ("nameserver FE80::1%a\nnameserver fe80::1%b\n", "", ["[fe80::1%a]:53", "[fe80::1%b]:53"]),
        (STUB, "nameserver 10.96.0.10\n", []),
        ("nameserver 10.96.0.10\nnameserver 192.0.2.1\n", "", ["192.0.2.1:53"]),
    ],
)  # fmt: skip
def test_the_servers_of_the_host(
    text: str, stub: str, servers: list[str], tmp_path: Path, resolved: Path
) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(text)
    resolved.write_text(stub)
    found = HostServers([SocketAddress("10.96.0.10", 53)], path)
    assert [str(server) for server in found.servers()] == servers


def test_a_changed_file_is_read_again(tmp_path: Path, resolved: Path) -> None:
    path = tmp_path / "resolv.conf"
    found = HostServers([], path)
    assert list(found.servers()) == []
    path.write_text("nameserver 192.0.2.1\n")
    assert list(found.servers()) == [SocketAddress("192.0.2.1", 53)]
    path.write_text("nameserver 192.0.2.1\nnameserver 192.0.2.2\n")
    assert len(found.servers()) == 2


@pytest.mark.parametrize(
    ("client", "may"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("10.244.1.2", True),
        ("fd00:244::7", True),
        ("10.0.0.8", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_pods_and_the_node_may_ask_for_other_names(client: str, may: bool) -> None:
    pods = frozenset({parse_address("10.0.0.8")})
    assert may_recurse(client, networks("10.244.0.0/16,fd00:244::/48"), lambda: pods) == may
