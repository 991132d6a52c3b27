"""`kproxy dns connect`: the file for each resolver of a host, and how it is written and removed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from ipaddress import ip_network
from pathlib import Path

import pytest

from kproxy.cli import main
from kproxy.dns.connect import apply, running, undo
from kproxy.dns.core.connect import HEADING, RESOLVERS, Resolver, in_use, target
from kproxy.model import parse_address
from kproxy.problems import HostError
from kproxy.settings import text

RESOLVED, DNSMASQ, UNBOUND = RESOLVERS
SERVERS = [parse_address("10.96.0.10"), parse_address("fd00:10:96::a")]
RANGES = [ip_network("10.96.0.0/15"), ip_network("fd00::/16")]
ZONES = target("cluster.local", SERVERS, RANGES)
DOMAINS = ("cluster.local", "96.10.in-addr.arpa", "97.10.in-addr.arpa", "0.0.d.f.ip6.arpa")
STUB_ZONE = """\
stub-zone:
    name: "{}."
    stub-addr: 10.96.0.10
    stub-addr: fd00:10:96::a
"""
CONTENTS = {
    RESOLVED: """\
[Resolve]
DNS=10.96.0.10 fd00:10:96::a
Domains=~cluster.local
Domains=~96.10.in-addr.arpa
Domains=~97.10.in-addr.arpa
Domains=~0.0.d.f.ip6.arpa
""",
    DNSMASQ: "".join(f"server=/{domain}/10.96.0.10\nserver=/{domain}/fd00:10:96::a\n" for domain in DOMAINS)
    + "rebind-domain-ok=/cluster.local/\n",
    UNBOUND: """\
server:
    private-domain: "cluster.local."
    local-zone: "cluster.local." transparent
    domain-insecure: "cluster.local."
    local-zone: "96.10.in-addr.arpa." transparent
    domain-insecure: "96.10.in-addr.arpa."
    local-zone: "97.10.in-addr.arpa." transparent
    domain-insecure: "97.10.in-addr.arpa."
    local-zone: "0.0.d.f.ip6.arpa." transparent
    domain-insecure: "0.0.d.f.ip6.arpa."
"""
    + "".join(map(STUB_ZONE.format, DOMAINS)),
}
CHECKS = {
    DNSMASQ: ("dnsmasq", "--test", "--conf-file={}"),
    UNBOUND: ("unbound-checkconf", "{}"),
}
"""The programs of the resolvers that check a file. systemd-resolved has none."""
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
of_each = pytest.mark.parametrize("resolver", RESOLVERS, ids=lambda each: each.name)


def test_the_flag_has_the_names_of_all_resolvers() -> None:
    assert tuple(each.name for each in RESOLVERS) == text.RESOLVERS


@of_each
def test_the_file_of_a_resolver(resolver: Resolver) -> None:
    assert resolver.content(ZONES) == f"{HEADING}\n{CONTENTS[resolver]}"


@pytest.mark.parametrize("resolver", CHECKS, ids=lambda each: each.name)
@pytest.mark.parametrize("ranges", [RANGES, [ip_network("10.0.0.0/9")]], ids=["dual-stack", "many zones"])
def test_a_resolver_accepts_its_file(resolver: Resolver, ranges: list[object], tmp_path: Path) -> None:
    program, *arguments = CHECKS[resolver]
    if (found := shutil.which(program, path=SBIN)) is None:
        pytest.skip(f"no {program} here (Debian: dnsmasq-base, unbound)")
    file = tmp_path / "kproxy.conf"
    more = 'server:\n    username: ""\n    chroot: ""\n    directory: ""\n' if resolver is UNBOUND else ""
    file.write_text(resolver.content(target("cluster.local", SERVERS, ranges)) + more)  # type: ignore[arg-type]
    command = [found, *(each.format(file) for each in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unbound_may_ask_a_server_on_loopback() -> None:
    text = UNBOUND.content(target("cluster.local", [parse_address("127.0.0.10")], []))
    assert "    do-not-query-localhost: no\n" in text


@pytest.mark.parametrize(
    ("servers", "active", "expected"),
    [
        (["127.0.0.53"], [RESOLVED], RESOLVED),
        (["127.0.0.53"], [RESOLVED, DNSMASQ], RESOLVED),
        (["127.0.0.53"], [DNSMASQ], None),
        (["127.0.0.1"], [DNSMASQ], DNSMASQ),
        (["127.0.0.1"], [RESOLVED, UNBOUND], UNBOUND),
        (["::1", "192.0.2.53"], [UNBOUND], UNBOUND),
        (["127.0.0.1"], [DNSMASQ, UNBOUND], None),
        (["127.0.0.1"], [RESOLVED], None),
        (["192.0.2.53"], [RESOLVED, DNSMASQ], None),
        ([], [UNBOUND], None),
    ],
)
def test_the_resolver_that_a_host_uses(
    servers: list[str], active: list[Resolver], expected: Resolver | None
) -> None:
    assert in_use([parse_address(each) for each in servers], active) == expected


@pytest.mark.parametrize("hierarchy", ["sys/fs/cgroup", "sys/fs/cgroup/systemd"])
@of_each
def test_a_resolver_runs_if_its_unit_has_a_cgroup(tmp_path: Path, resolver: Resolver, hierarchy: str) -> None:
    assert running(tmp_path) == []
    (tmp_path / hierarchy / "system.slice" / f"{resolver.name}.service").mkdir(parents=True)
    assert running(tmp_path) == [resolver]


# --- writing and removing, in a folder in place of the root folder ---


class Host:
    """A folder that stands for the host's file system, and a systemctl that notes how it is called."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "root"
        self.calls = folder / "calls"
        self.program = folder / "bin" / "systemctl"
        self.program.parent.mkdir()
        for resolver in RESOLVERS:
            self.file(resolver).parent.parent.mkdir(parents=True, exist_ok=True)
        self.systemctl(f'echo "$@" >> {self.calls}')
        monkeypatch.setenv("PATH", f"{self.program.parent}:{os.environ['PATH']}")

    def systemctl(self, script: str) -> None:
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    def file(self, resolver: Resolver) -> Path:
        return self.root / resolver.path.lstrip("/")

    def restarted(self) -> list[str]:
        """The arguments of each call of systemctl so far."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@of_each
def test_a_file_is_written_replaced_and_removed(host: Host, resolver: Resolver) -> None:
    file, restart = host.file(resolver), f"try-restart {resolver.name}.service"
    apply(resolver, f"{HEADING}\nold\n", host.root)
    file.with_name(f".{file.name}.new").write_text("of a kproxy that was killed")
    apply(resolver, resolver.content(ZONES), host.root)
    assert file.read_text() == resolver.content(ZONES)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert list(file.parent.iterdir()) == [file]
    assert host.restarted() == [restart] * 2
    assert undo(RESOLVERS, host.root) == [resolver]
    assert list(file.parent.iterdir()) == []
    assert host.restarted() == [restart] * 3
    assert undo(RESOLVERS, host.root) == []
    assert len(host.restarted()) == 3


def _other_text(file: Path) -> None:
    file.write_text("server=/cluster.local/192.0.2.1\n")


def _longer_heading(file: Path) -> None:
    file.write_text(f"{HEADING} Not.\n")


def _link(file: Path) -> None:
    (file.parent / "other").write_text(f"{HEADING}\n")
    file.symlink_to("other")


def _dangling(file: Path) -> None:
    file.symlink_to("missing")


def _unread(file: Path) -> tuple[int, ...]:
    """What a reader does not change of a file: all but the time of access."""
    found = file.lstat()
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@pytest.mark.parametrize("make", [_other_text, _longer_heading, _link, _dangling, Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("act", ["apply", "undo"])
def test_a_file_that_kproxy_did_not_write_stays(host: Host, make: object, act: str) -> None:
    file = host.file(DNSMASQ)
    file.parent.mkdir()
    make(file)  # type: ignore[operator]
    apply(RESOLVED, RESOLVED.content(ZONES), host.root)
    before = _unread(file)
    with pytest.raises(HostError, match=f"{file} was not written by kproxy"):
        apply(DNSMASQ, DNSMASQ.content(ZONES), host.root) if act == "apply" else undo(RESOLVERS, host.root)
    assert _unread(file) == before
    assert host.file(RESOLVED).exists()
    assert len(host.restarted()) == 1


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo Unit unbound.service not found. >&2; exit 5", "failed: Unit unbound.service not found."),
        ("exit 3", "failed: status 3"),
        (None, "failed: No such file or directory"),
    ],
)
def test_a_failed_restart_is_an_error(
    host: Host, script: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is None:
        monkeypatch.setenv("PATH", str(host.root))
    else:
        host.systemctl(script)
    with pytest.raises(HostError, match=f"was written, but `systemctl .*` {message}"):
        apply(UNBOUND, UNBOUND.content(ZONES), host.root)
    with pytest.raises(HostError, match=f"was removed, but `systemctl .*` {message}"):
        undo(RESOLVERS, host.root)
    assert not host.file(UNBOUND).exists()


def test_a_folder_that_cannot_be_made_is_an_error(host: Host) -> None:
    host.file(UNBOUND).parent.parent.rmdir()
    with pytest.raises(HostError, match="No such file or directory") as raised:
        apply(UNBOUND, UNBOUND.content(ZONES), host.root)
    assert raised.value.hint == "Is unbound installed?"
    assert host.restarted() == []


# --- the command ---


def printed(capsys: pytest.CaptureFixture[str], status: int, *arguments: str) -> str:
    assert main(["dns", "connect", *arguments]) == status
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def test_the_command_prints_the_file_of_the_resolver_in_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kproxy.cli.dns.running", lambda: [DNSMASQ])
    (file := tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    ranges = ["--service-cidr", "10.96.0.0/15,fd00::/16", "--cluster-dns", "10.96.0.10,fd00:10:96::a"]
    assert printed(capsys, 0, "--resolv-conf", str(file), *ranges) == (
        f"# This host uses dnsmasq: {file} names 127.0.0.1.\n\n"
        f"# /etc/dnsmasq.d/kproxy.conf\n{HEADING}\n{CONTENTS[DNSMASQ]}\n"
        "# systemctl try-restart dnsmasq.service\n"
    )


def test_the_command_prints_all_files_if_it_does_not_know_the_resolver(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kproxy.cli.dns.running", lambda: [DNSMASQ, UNBOUND])
    (file := tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    reason = (
        f"It is not known which resolver this host uses: {file} names 127.0.0.1. Running: dnsmasq, unbound."
    )
    text = printed(capsys, 0, "--resolv-conf", str(file), "--cluster-domain", "k8s.example")
    assert text.startswith(f"# {reason}\n")
    assert all(f"# {each.path}\n{HEADING}\n" in text for each in RESOLVERS)
    assert "server=/k8s.example/10.96.0.10\n" in text
    if os.geteuid() == 0:
        error = printed(capsys, 2, "--resolv-conf", str(file), "--apply")
        assert error == f"kproxy: {reason} Name it with --resolver.\n"


@pytest.mark.parametrize("flag", ["--apply", "--undo"])
def test_a_change_needs_root(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    error = printed(capsys, 1, flag, "--resolver", "unbound")
    assert "must run as root to change the configuration of this host's resolver." in error


def test_apply_and_undo_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--apply and --undo exclude each other." in printed(capsys, 2, "--apply", "--undo")
