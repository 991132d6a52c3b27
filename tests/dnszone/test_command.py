"""`kproxy dns zone` is accepted by BIND's checker, and `kproxy dns resolv-conf` is that of a kubelet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import dns.rdatatype
import dns.zone
import pytest

from kproxy.cli import main
from kproxy.dns.core.resolv import MOST_CHARACTERS, parse, pod_resolv_conf
from kproxy.model import parse_address
from tests.dnszone.table import ROWS, WORLD, section

CIDRS = ["--service-cidr", "10.96.0.0/16,fd00:10:96::/112", "--node-name", "n1", "--node-ip", "192.0.2.1"]
ZONES = ["cluster.local", "96.10.in-addr.arpa", "10.in-addr.arpa"]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["dns", *arguments]) == 0
    return capsys.readouterr().out


def zone(capsys: pytest.CaptureFixture[str], tmp_path: Path, *more: str) -> str:
    return printed(capsys, "zone", "-f", str(WORLD), *CIDRS, "--state-dir", str(tmp_path), *more)


@pytest.mark.parametrize("origin", ZONES)
def test_the_checker_of_bind_accepts_a_zone(
    origin: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "zone"
    file.write_text(zone(capsys, tmp_path, "--zone", origin))
    checker = shutil.which("named-checkzone", path="/usr/bin:/usr/sbin:/sbin:/bin")
    assert checker, "Debian: bind9-utils"
    done = subprocess.run([checker, "-i", "local", origin, file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "OK"), done.stdout
    assert "warning" not in done.stdout


def test_a_zone_has_the_records_that_the_table_expects(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = dns.zone.from_text(zone(capsys, tmp_path), relativize=False)
    rrsets = [
        found.get_rrset(name, data.rdtype) for name, node in found.nodes.items() for data in node.rdatasets
    ]
    records = section([rrset for rrset in rrsets if rrset is not None])
    expected = {
        line
        for row in ROWS
        for line in row.records
        if row.kind not in ("PTR", "SOA", "ANY") and "arpa" not in line
    }
    assert len(expected) > 50
    assert expected <= records


def test_the_file_of_a_pod(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    host = tmp_path / "resolv.conf"
    host.write_text("search corp.example.\nnameserver 192.0.2.53\n")
    assert printed(capsys, "resolv-conf", "-n", "shop", "--resolv-conf", str(host), *CIDRS[:2]) == (
        "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n"
        "nameserver 10.96.0.10\nnameserver fd00:10:96::a\noptions ndots:5\n"
    )


def test_a_range_without_a_tenth_address_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dns", "resolv-conf", "--service-cidr", "10.96.0.0/29"]) == 2
    assert "no tenth address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "servers", "search"),
    [
        ("", [], ()),
        ("nameserver 192.0.2.1\nnameserver 2001:db8::1 # second\n", ["192.0.2.1", "2001:db8::1"], ()),
        ("search a.example b.example.\n", [], ("a.example", "b.example")),
        ("search a.example\ndomain c.example\n", [], ("c.example",)),
        ("search .\n", [], ()),
        ("nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n", ["fe80::1"], ()),
        ("# nameserver 192.0.2.1\n; nameserver 192.0.2.2\n", [], ()),
    ],
)
def test_a_resolv_conf_is_parsed(text: str, servers: list[str], search: tuple[str, ...]) -> None:
    found = parse(text)
    assert (found.servers, found.search) == (tuple(map(parse_address, servers)), search)


def test_a_long_search_list_is_cut_at_its_end() -> None:
    domains = [f"{number}.{'x' * 60}.example" for number in range(100)]
    search = pod_resolv_conf("default", "cluster.local", [], domains).splitlines()[0].split()[1:]
    assert search[:4] == ["default.svc.cluster.local", "svc.cluster.local", "cluster.local", domains[0]]
    assert len(" ".join(search)) <= MOST_CHARACTERS
    assert len(search) > 20
