"""The driver with a real HAProxy: each configuration gets in, by commands if the file stays the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace
from netns_lab.lab import Lab

from kproxy.decode import Document, decode
from kproxy.gateway.certificates import self_signed
from kproxy.gateway.core.configuration import Configuration, Section, Server, State
from kproxy.gateway.core.files import control_socket
from kproxy.gateway.core.ingress import Ports
from kproxy.gateway.core.plan import Running, fingerprint, placed
from kproxy.gateway.driver import LOADED, Driver
from kproxy.gateway.folder import Folders
from kproxy.gateway.gateway import Gateway
from kproxy.gateway.process import Own, RefusedError
from kproxy.gateway.renderer import Renderer
from kproxy.gateway.runtime import Runtime
from kproxy.model import NamespacedName
from kproxy.problems import KproxyError
from kproxy.sources.core.routed import RoutedObjects
from tests.gateway.world import service
from tests.ingresses import ingress
from tests.support import eventually

pytestmark = pytest.mark.lab
Result = TypeVar("Result")
HEAD = """\
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s

frontend http
    bind 127.0.0.1:80
    bind 127.0.0.1:443 ssl strict-sni crt-list tls.list
    use_backend %[req.hdr(host),map(hosts.map,none)]
    # Ingress default/web
    http-request set-header X-Path %[path,map_beg(paths.map,none)]
"""
SECTIONS = {f"default.{name}": Section(4) for name in "abc"}


@pytest.fixture(scope="module")
def certificates() -> dict[str, bytes]:
    """Two certificates of each name."""
    return {
        f"{name}{number}": b"".join(self_signed([f"{name}.example.com"]))
        for name in "xyz"
        for number in (1, 2)
    }


class Driven:
    """A driver, whose HAProxy is in a node of a lab."""

    def __init__(self, lab: Lab, state: Path) -> None:
        self._node = lab.node("n1")
        self.folders = Folders(state)
        self.driver = Driver(self.folders, Own(self.folders))

    def apply(self, wanted: Configuration) -> None:
        self._node.inside(lambda: self.driver.apply(wanted))

    def inside(self, call: Callable[[], None]) -> None:
        self._node.inside(call)

    def audit(self) -> None:
        self._node.inside(self.driver.audit)

    def get(self, host: str) -> int:
        """The status of a request."""
        with self._node.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            client.connect(("127.0.0.1", 80))
            client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            return int(client.recv(1000).split()[1])

    @property
    def folder(self) -> Path:
        assert self.driver.process
        return self.driver.process.folder

    @property
    def runtime(self) -> Runtime:
        assert self.driver.process
        return self.driver.process.runtime

    @property
    def pid(self) -> int:
        assert self.driver.process
        return self.driver.process.pid

    def ask(self, command: str) -> str:
        return self.runtime.ask(command)

    def read(self) -> Running:
        """What HAProxy has, in an order that does not matter to it."""
        assert self.driver.loaded
        found = self.runtime.read(self.driver.loaded)
        lists = {name: tuple(sorted(entries)) for name, entries in found.certificate_lists.items()}
        return replace(found, certificate_lists=lists)


@pytest.fixture
def driven(lab: Lab, tmp_path: Path) -> Iterator[Driven]:
    driven = Driven(lab, tmp_path / "state")
    yield driven
    if driven.driver.process:
        driven.driver.process.close()


def configuration(pems: dict[str, bytes], **parts: object) -> Configuration:
    """One backend with a server, one host, and one certificate."""
    base = Configuration(
        HEAD,
        SECTIONS,
        {"default.a": (Server("127.0.0.1", 8080),)},
        {"hosts.map": (("a.example.com", "default.a"),), "paths.map": (("/", "x"),)},
        {"x.pem": pems["x1"]},
        {"tls.list": (("x.pem", ("x.example.com",)),)},
    )
    return replace(base, **parts)


def some(random: random.Random, certificates: dict[str, bytes]) -> Configuration:
    """A random configuration with the file of the others."""
    servers = [Server(f"10.0.0.{n}", 8000 + n % 3) for n in range(8)] + [Server("fd00::1", 80)]

    def chosen() -> tuple[Server, ...]:
        found = random.sample(servers, random.randint(0, 4))
        return tuple(
            sorted(
                replace(each, weight=random.choice((0, 1, 7, 256)), state=random.choice(list(State)))
                for each in found
            )
        )

    names = [name for name in "xyz" if random.random() < 0.7]
    hosts = [f"{n}.example.com" for n in range(300)]
    return configuration(
        certificates,
        backends={name: chosen() for name in SECTIONS if random.random() < 0.8},
        maps={
            "hosts.map": tuple((host, random.choice([*SECTIONS])) for host in random.sample(hosts, 250)),
            "paths.map": tuple((f"/{n}", "x") for n in range(random.randint(0, 3))),
        },
        certificates={f"{name}.pem": certificates[f"{name}{random.choice('12')}"] for name in names},
        certificate_lists={
            "tls.list": tuple(
                (
                    f"{name}.pem",
                    tuple(random.sample(["a.org", "*.b.org", f"{name}.org"], random.randint(1, 3))),
                )
                for name in names
            )
        },
    )


def expected(wanted: Configuration, running: Running) -> Running:
    """What HAProxy should have, with the servers in the slots in which they are."""
    slots = {name: placed(found, wanted.backends.get(name, ())) for name, found in running.backends.items()}
    assert all(slots.values())
    return Running(
        {name: found for name, found in slots.items() if found},
        wanted.maps,
        {name: fingerprint(pem) for name, pem in wanted.certificates.items()},
        {name: tuple(sorted(entries)) for name, entries in wanted.certificate_lists.items()},
    )


def test_any_change_that_keeps_the_file_is_made_without_a_reload(
    driven: Driven, certificates: dict[str, bytes]
) -> None:
    chance = random.Random(1)
    driven.apply(configuration(certificates))
    first = driven.pid
    for number in range(40):
        wanted = some(chance, certificates)
        driven.apply(wanted)
        found = driven.read()
        assert found == expected(wanted, found), number
        driven.audit()
    assert driven.pid == first
    assert (driven.driver.counts.reloads, driven.driver.counts.repairs) == (0, 0)


def test_another_file_reloads_and_spare_backends_avoid_it(
    driven: Driven, certificates: dict[str, bytes]
) -> None:
    driven.apply(configuration(certificates, sections={**SECTIONS, "spare-1": Section(4)}))
    first = driven.pid

    def with_new(name: str) -> Configuration:
        sections = {**SECTIONS, name: Section(4), "spare-1": Section(4)}
        hosts = (("new.example.com", name),)
        servers = {name: (Server("127.0.0.1", 1),)}
        return configuration(
            certificates, sections=sections, backends=servers, maps={"hosts.map": hosts, "paths.map": ()}
        )

    driven.apply(with_new("default.new"))
    assert driven.driver.loaded
    assert driven.driver.loaded.spares == {"default.new": "spare-1"}
    assert (driven.pid, driven.get("new.example.com")) == (first, 503)
    both = with_new("default.new")
    driven.apply(
        replace(
            both,
            sections={**both.sections, "default.d": Section(4)},
            backends={**both.backends, "default.d": ()},
        )
    )
    assert driven.pid != first
    assert driven.driver.counts.reloads == 1
    eventually(lambda: ended(first))


def ended(pid: int) -> bool:
    """Whether a process has ended. Its parent may not have reaped it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


REMOVE_SOCKET = "remove the socket"
EDITS = (
    "set server default.a/s1 state maint",
    "set server default.a/s1 addr 10.0.0.9 port 9",
    "add server default.a/mine 10.0.0.9:9",
    "clear map hosts.map",
    "add map hosts.map b.example.com default.b",
    "del ssl crt-list tls.list x.pem",
    REMOVE_SOCKET,
)


def seems_changed(driven: Driven, before: Running) -> bool:
    """Whether what HAProxy has differs. It may answer a command before it changes an address."""
    try:
        return driven.read() != before
    except KproxyError:  # a server that kproxy did not add
        return True


@pytest.mark.parametrize("edit", EDITS)
def test_what_another_program_changed_is_repaired(
    driven: Driven, certificates: dict[str, bytes], edit: str
) -> None:
    wanted = configuration(certificates)
    driven.apply(wanted)
    before = driven.read()
    if edit == REMOVE_SOCKET:
        (driven.folder / control_socket(driven.folder.name)).unlink()
    else:
        driven.ask(edit)
        eventually(lambda: seems_changed(driven, before))
    driven.audit()
    eventually(lambda: (found := driven.read()) == expected(wanted, found))
    assert driven.driver.counts.repairs + driven.driver.counts.reloads == 1


def test_a_killed_process_is_started_with_what_it_had_and_files_that_were_edited_do_not_matter(
    driven: Driven, certificates: dict[str, bytes]
) -> None:
    wanted = configuration(certificates)
    driven.apply(wanted)
    for file in ("haproxy.cfg", "hosts.map", "x.pem"):
        (driven.folder / file).write_text("another program was here\n")
    os.kill(driven.pid, signal.SIGKILL)
    eventually(lambda: not (driven.driver.process and driven.driver.process.running))
    driven.apply(wanted)
    found = driven.read()
    assert found == expected(wanted, found)
    assert driven.driver.counts.restarts == 1


@pytest.mark.parametrize("content", [b"", b"\x81\xa4head\xa1\xff"])
def test_a_damaged_file_about_the_process_leads_to_a_reload(
    driven: Driven, lab: Lab, certificates: dict[str, bytes], content: bytes
) -> None:
    wanted = configuration(certificates)
    driven.apply(wanted)
    (driven.folder / LOADED).write_bytes(content)
    later = Driven(lab, driven.folders.path.parent)
    later.apply(wanted)
    found = later.read()
    assert found == expected(wanted, found)
    assert later.pid != driven.pid


def test_a_process_that_hangs_is_replaced(
    driven: Driven, certificates: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    driven.apply(configuration(certificates))
    first, hung, exchange = driven.pid, driven.runtime.path, Runtime._exchange

    def impatient(runtime: Runtime, request: bytes) -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            if runtime.path == hung:
                patch.setattr("kproxy.gateway.runtime.GATEWAY_SECONDS", 0.2)
            return bytes(exchange(runtime, request))

    monkeypatch.setattr(Runtime, "_exchange", impatient)
    os.kill(first, signal.SIGSTOP)
    driven.audit()
    assert driven.pid != first
    assert driven.get("b.example.com") == 503
    assert ended(first)


def test_a_process_whose_folder_was_removed_is_replaced(
    driven: Driven, certificates: dict[str, bytes]
) -> None:
    driven.apply(configuration(certificates))
    first = driven.pid
    shutil.rmtree(driven.folders.path.parent)
    driven.audit()
    assert driven.pid != first
    assert driven.get("b.example.com") == 503
    eventually(lambda: ended(first))
    driven.apply(configuration(certificates, backends={"default.a": (Server("10.0.0.1", 1),)}))
    assert driven.driver.counts.reloads == 1


def test_a_later_kproxy_finds_the_process(driven: Driven, certificates: dict[str, bytes], lab: Lab) -> None:
    driven.apply(configuration(certificates))
    driven.apply(configuration(certificates, backends={"default.a": (Server("10.0.0.1", 1),)}))
    later = Driven(lab, driven.folders.path.parent)
    wanted = configuration(certificates, backends={"default.b": (Server("10.0.0.2", 2),)})
    later.apply(wanted)
    found = later.read()
    assert found == expected(wanted, found)
    assert later.pid == driven.pid


def test_a_refused_configuration_leaves_the_one_before_and_is_named(
    driven: Driven, certificates: dict[str, bytes]
) -> None:
    good = configuration(certificates)
    driven.apply(good)
    first = driven.pid
    bad = replace(good, head=f"{HEAD}    nonsense\n", backends={"default.a": (Server("10.0.0.7", 7),)})
    for _ in range(2):
        with pytest.raises(RefusedError, match=r"nonsense.*frontend http: Ingress default/web"):
            driven.apply(bad)
    assert driven.pid == first
    assert driven.read().backends["default.a"].count(Server("10.0.0.7", 7)) == 1
    driven.apply(good)
    assert driven.driver.counts.reloads == 0


def test_a_full_disk_leaves_the_configuration_before(lab: Lab, certificates: dict[str, bytes]) -> None:
    state = Path("/run") / f"kproxy-full-{lab.id}"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", state], check=True)
    try:
        driven = Driven(lab, state)
        good = configuration(certificates)
        driven.apply(good)
        first, files = driven.pid, sorted(driven.folders.path.rglob("*"))
        with pytest.raises(KproxyError, match="No space left"):
            driven.apply(replace(good, files={"page.html": bytes(300_000)}))
        assert (driven.pid, sorted(driven.folders.path.rglob("*"))) == (first, files)
        driven.apply(replace(good, backends={}))
        assert driven.get("a.example.com") == 503
    finally:
        os.kill(driven.pid, signal.SIGKILL)
        eventually(lambda: Own(driven.folders).find(driven.folder) is None)
        subprocess.run(["umount", "-l", state], check=True)
        state.rmdir()


def test_only_root_can_read_the_files_and_haproxy_has_its_own_user(
    driven: Driven, certificates: dict[str, bytes]
) -> None:
    driven.apply(configuration(certificates))
    modes = {stat.S_IMODE(each.stat().st_mode) for each in driven.folders.path.rglob("*") if each.is_file()}
    assert modes == {0o600}
    folders = (driven.folders.path, driven.folder)
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}
    status = Path(f"/proc/{driven.pid}/status").read_text()
    assert "\nUid:\t0\t" not in status
    assert Path(f"/proc/{driven.pid}/root").readlink() == driven.folders.empty


def test_an_object_that_haproxy_refuses_is_left_out_and_named(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kproxy checks what it writes. If HAProxy refuses some of it nevertheless, the rest still gets in."""
    for module in ("annotations", "frontend"):
        monkeypatch.setattr(f"kproxy.gateway.core.{module}.checked_regex", str)
    canary = {"canary": "true", "canary-by-header": "X", "canary-by-header-pattern": "(("}
    canary = {f"kproxy.io/{name}": text for name, text in canary.items()}
    timeout = {"kproxy.io/proxy-read-timeout": "9999h"}
    monkeypatch.setattr("kproxy.gateway.core.sections.LARGEST_TIME", 10**15)
    made = [
        *service("foo", "10.0.0.1"),
        ingress("main", "c.example.com", "foo"),
        ingress("canary", "c.example.com", "foo", annotations=canary),
        ingress("slow", "s.example.com", "foo", annotations=timeout),
        ingress("good", "good.example.com", "none"),
    ]
    state = decode(Document("f.yaml", each) for each in made).state
    gateway = Gateway(driven.driver, None, Renderer(Ports()))  # type: ignore[arg-type]
    objects = RoutedObjects(state.ingresses, services=state.services, slices=state.slices)
    driven.inside(lambda: gateway._apply(objects))
    assert driven.get("good.example.com") == 503
    assert driven.get("s.example.com") == 404
    assert gateway.ingresses == {NamespacedName("default", "good")}
    assert [(each.source, each.object) for each in gateway.problems] == [
        ("f.yaml", "Ingress default/main"),
        ("f.yaml", "Ingress default/slow"),
    ]
    assert all("HAProxy refuses it: " in each.message for each in gateway.problems)
