"""The status page: what it shows, its size, that text is only text, and who gets it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kproxy.cli import settings_from
from kproxy.control.lookup import look_up
from kproxy.model import Event, NamespacedName, ServicePortName
from kproxy.observe.doctor import Doctor, read_findings
from kproxy.observe.http import NOT_FOUND, Request, Response
from kproxy.observe.status import HEADERS, OTHER_HOST, StatusPage, is_loopback, is_own_name
from kproxy.picture.status import BYTES, Finding, Findings, Now, Refused, status_page
from kproxy.printable import printable
from kproxy.problems import Problem
from kproxy.settings.derived import StatusAccess
from kproxy.show.snapshot import Failure, Snapshot
from kproxy.table.simulator import Reason
from tests.breaks import FLAGS, World, healthy
from tests.unit.make import name, service

NOW = 1_800_000_000.0
FOUND = Findings((Finding("KP055", "likely", "this node", "a firewall", "Accept it."),), 2, 40, NOW - 75)


REFUSED: Refused = {
    (ServicePortName(name("balanced"), "http"), Reason.SOURCE_RANGES): 3,
    (ServicePortName(name("zero"), ""), Reason.NO_ENDPOINTS): 41,
}


def snapshot_of(folder: Path, world: World) -> Snapshot:
    """Return the snapshot of manifests."""
    path = folder / "in.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(world.values())}))
    return look_up(settings_from(["doctor", *FLAGS.split(), "-f", str(path), "--state-dir", str(folder)]))


@pytest.fixture(name="snapshot", scope="module")
def _snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    empty = {"zero": service("zero", clusterIP="10.96.0.10", selector={"app": "none"}, ports=[{"port": 80}])}
    return snapshot_of(tmp_path_factory.mktemp("page"), healthy() | empty)


class Reader(HTMLParser):
    """Reads a page: its text, and its elements with their attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page.decode())

    def handle_data(self, data: str) -> None:
        """Collect a text."""
        self.texts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect an element."""
        self.elements.append((tag, tuple(key for key, _ in attrs)))

    @property
    def words(self) -> str:
        """All text."""
        return " ".join(" ".join(self.texts).split())


def page(snapshot: Snapshot, findings: Findings = FOUND, refused: Refused = REFUSED) -> Reader:
    """Return the page, which is within its limit."""
    made = status_page(snapshot, findings, Now(NOW, "2027-01-15 08:00:00 UTC", "0.1.0"), refused)
    assert len(made) <= BYTES
    return Reader(made)


SHOWS = [
    "kproxy on n1",
    "version 0.1.0, 6 Services, 9 frontends, as of 2027-01-15 08:00:00 UTC",
    "Healthy: the tables are up to date.",
    "It looked for 40 causes 75s ago, and could not see the facts of 2 others.",
    "KP055 this node a firewall (likely) Accept it.",
    "Since kproxy started. Connections Service Because 41 default/zero no endpoint is ready "
    "3 default/balanced:http loadBalancerSourceRanges do not contain the client",
    "1 of 6 refuse or drop connections because they have no endpoint.",
    "default/zero ClusterIP 80/tcp 10.96.0.10:80/tcp ClusterIP no endpoint: packets are refused default/",
    "default/web NodePort http 80/tcp 10.96.0.1:80/tcp ClusterIP 192.0.2.1:30080/tcp NodePort",
    "50.0% 10.244.1.2:8080 web-1 on n1 50.0% 10.244.2.2:8080 web-2 on n2",
]


@pytest.mark.parametrize("text", SHOWS)
def test_the_page_shows(snapshot: Snapshot, text: str) -> None:
    assert text in page(snapshot).words


def test_events_and_problems(snapshot: Snapshot) -> None:
    refused = Event("Refused", "refused 41 connections in 10 s", 3, NOW - 600, NOW - 12)
    came = Event("EndpointsChanged", "10.244.1.2:8080 came", 1, NOW - 90, NOW - 90, False)
    changed = replace(
        snapshot,
        events={name("web"): (came,), name("balanced"): (refused,)},
        problems=[Problem("web.yaml", "Service default/web", "spec.ports[0].port", "is not a number")],
        unhealthy=("IPv4: a change is not programmed yet",),
        last_errors=(
            Failure("2027-01-15T07:59:00Z", "Service default/web", "the kernel refused an element"),
        ),
    )
    words = page(changed).words
    assert "12s (x3) default/balanced Refused refused 41 connections in 10 s 90s default/web Endp" in words
    assert "2027-01-15T07:59:00Z: Service default/web: the kernel refused an element" in words
    assert "web.yaml: Service default/web: spec.ports[0].port: is not a number" in words
    assert "Not healthy: IPv4: a change is not programmed yet" in words
    # Services with warnings follow those without endpoints.
    order = [words.index(f"default/{each}") for each in ("zero ClusterIP", "balanced Load", "headless head")]
    assert order == sorted(order)


def test_many_findings_of_one_cause_do_not_hide_the_others(snapshot: Snapshot) -> None:
    rows = [Finding("KP003", "sure", f"Service default/s{n}", "not ready", "Wait.") for n in range(5000)]
    words = page(snapshot, Findings((*rows, *FOUND.rows), 0, 44, NOW)).words
    assert "Service default/s2 not ready (sure, and 4997 more of this cause) Wait. KP055 this node" in words


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        (Findings(), "kproxy doctor is looking. Load the page again in some seconds."),
        (Findings(at=NOW, checked=44), "It looked for 44 causes 0s ago. It found nothing."),
        (Findings(at=NOW, failure="it printed nothing"), "kproxy doctor could not look: it printed nothing"),
    ],
)
def test_the_doctor_in_other_states(snapshot: Snapshot, findings: Findings, expected: str) -> None:
    assert expected in page(snapshot, findings).words


def many(snapshot: Snapshot, count: int, long: str = "") -> Snapshot:
    """Return a snapshot of many Services like `web`, and as many events, findings and problems."""
    own = snapshot.inventory.services[name("web")]
    frontends = [each for each in snapshot.frontends if each.owner.service == own.name]
    names = [NamespacedName("default", f"{long}s{number}") for number in range(count)]
    slices = snapshot.inventory.slices[own.name]
    return replace(
        snapshot,
        inventory=replace(
            snapshot.inventory,
            services={each: replace(own, name=each) for each in names},
            slices=dict.fromkeys(names, slices),
        ),
        frontends=[replace(f, owner=f.owner._replace(service=each)) for each in names for f in frontends],
        events={each: (Event("Refused", long * 9, 1, NOW, NOW),) for each in names},
        problems=[Problem("", f"Service {each}", "", long * 9) for each in names],
        unhealthy=tuple(long * 9 for _ in names),
    )


@pytest.mark.parametrize("long", ["", "\"'&<" * 60], ids=["usual", "hostile"])
def test_the_size_is_limited(snapshot: Snapshot, long: str) -> None:
    changed = many(snapshot, 3000, long)
    rows = tuple(Finding(f"KP{number}", "sure", long, long * 9, long) for number in range(3000))
    refused = {(ServicePortName(n, long), Reason.NO_ENDPOINTS): 9 for n in changed.inventory.services}
    words = page(changed, Findings(rows, 0, 44, NOW), refused).words
    assert "0 of 3000 refuse or drop" in words
    assert words.count("more, which kproxy get, describe and doctor show") == 5
    assert "50.0% 10.244.1.2:8080" in words or long


def test_a_service_that_is_too_large_does_not_displace_the_others(tmp_path: Path) -> None:
    ports = [{"name": f"p{n}", "port": 1000 + n, "targetPort": 8080} for n in range(200)]
    world = healthy() | {"a": service("a", clusterIP="10.96.0.11", selector={"app": "web"}, ports=ports)}
    words = page(snapshot_of(tmp_path, world)).words
    assert "default/a ClusterIP 200 ports 400 endpoints; too many for this page default/balanced" in words
    assert "default/web NodePort" in words


def with_text(snapshot: Snapshot, text: str) -> bytes:
    """Return a page on which each text that others choose is this one."""
    own = replace(
        snapshot.inventory.services[name("web")], external_name=text, name=NamespacedName(text, text)
    )
    slices = tuple(
        replace(each, endpoints=tuple(replace(e, pod=text, node=text) for e in each.endpoints))
        for each in snapshot.inventory.slices[name("web")]
    )
    frontends = [each for each in snapshot.frontends if each.owner.service == name("web")]
    changed = replace(
        snapshot,
        inventory=replace(snapshot.inventory, services={own.name: own}, slices={own.name: slices}),
        frontends=[replace(each, owner=each.owner._replace(service=own.name)) for each in frontends],
        events={own.name: (Event(text, text, 1, NOW, NOW),)},
        problems=[Problem(text, text, text, text)],
        unhealthy=(text,),
        node=replace(snapshot.node, name=text),
    )
    findings = Findings((Finding(text, text, text, text, text),), 0, 1, NOW)
    refused = {(ServicePortName(own.name, text), Reason.UNASSIGNED): 1}
    return status_page(changed, findings, Now(NOW, text, text), refused)


@given(st.text(min_size=1, max_size=12))
@example('"><script>alert(1)</script>')
@example("</style></title><!-- &#0; \x00\ufffe\ud800\\")
@settings(max_examples=60, deadline=None)
def test_any_text_is_only_text(snapshot: Snapshot, text: str) -> None:
    found = Reader(with_text(snapshot, text))
    assert found.elements == Reader(with_text(snapshot, "a")).elements
    assert not {tag for tag, _ in found.elements} & {"script", "img", "a", "link", "iframe", "form"}
    assert printable(text).split() == [] or printable(text) in " ".join(found.texts)


# --- who gets it ---

HOSTS = [
    ("127.0.0.1:10256", True),
    ("[::1]:10256", True),
    ("192.0.2.1", True),
    ("localhost:10256", True),
    ("N1:10256", True),
    ("", True),
    ("evil.example:10256", False),
    ("127.0.0.1.evil.example", False),
    ("[::1", True),
    ("n1.evil.example", False),
]


@pytest.mark.parametrize(("host", "expected"), HOSTS)
def test_the_header_host_is_of_this_host(host: str, expected: bool) -> None:
    assert is_own_name(host, ("n1",)) is expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


async def answer(page: StatusPage, request: Request) -> Response:
    """Return the response to a request."""
    found = page.handle(request)
    return await found if isinstance(found, Awaitable) else found


def test_only_loopback_gets_the_page_unless_an_address_was_given(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, snapshots = [], []

    async def look(self: Doctor) -> None:
        looks.append(1)
        self._last, self._looking = FOUND._replace(at=NOW * 2), None

    async def take() -> Snapshot:
        snapshots.append(1)
        return snapshot

    monkeypatch.setattr(Doctor, "_look", look)
    local = Request("/", "GET", "localhost:10256", "127.0.0.1")
    remote = Request("/", "GET", "192.0.2.1:10256", "192.0.2.1")

    async def main() -> None:
        page = StatusPage(take, StatusAccess(str(tmp_path), ("n1",)))
        assert await answer(page, remote) == NOT_FOUND
        assert await answer(page, local._replace(host="evil.example")) == OTHER_HOST
        assert snapshots == looks == []
        first, second = await asyncio.gather(answer(page, local), answer(page, local))
        assert (first.status, first.headers) == (200, HEADERS)
        assert b"KP055" in first.body
        assert first is second
        assert (len(snapshots), len(looks)) == (1, 1)  # clients share a page
        everywhere = StatusPage(take, StatusAccess(str(tmp_path), (), everywhere=True))
        assert (await answer(everywhere, remote)).status == 200

    asyncio.run(main())


FINDING = {"id": "KP002", "title": "t", "sureness": "sure", "subject": "web", "what": "w", "action": "a"}


def test_findings_are_read() -> None:
    findings = [FINDING, {**FINDING, "sureness": "cannot see"}]
    found = read_findings(json.dumps({"findings": findings, "checked": 44}).encode(), NOW)
    assert found == Findings((Finding("KP002", "sure", "web", "w", "a"),), 1, 44, NOW)
    for wrong in (b"", b"[]", b'{"findings": 1}'):
        with pytest.raises(ValueError, match=r"."):
            read_findings(wrong, NOW)


def test_a_doctor_that_cannot_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    found = asyncio.run(Doctor(str(tmp_path)).findings())
    assert "No such file" in found.failure


def test_the_doctor_looks_again_after_the_clock_was_set_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    monkeypatch.setattr("kproxy.observe.doctor.LOOK_SECONDS", 0.0)

    async def main() -> list[float | None]:
        doctor, times = Doctor(str(tmp_path)), []
        for now in (NOW, NOW - 1e6):
            monkeypatch.setattr("time.time", lambda now=now: now)
            await doctor.findings()
            while doctor._looking:
                await asyncio.sleep(0)
            times.append((await doctor.findings()).at)
        return times

    assert asyncio.run(main()) == [NOW, NOW - 1e6]
