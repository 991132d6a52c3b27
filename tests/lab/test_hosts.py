"""Hosts that lack something: what kproxy says then, and that what was programmed stays.

A kernel without an expression is made of this one: a copy of libnftables and libnftnl in which the
expression has another name asks the kernel for what it does not have, and is refused as it would be.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import http_get
from pyroute2 import IPRoute

from kproxy.kernel import features, host, structure, uplink
from kproxy.kernel.features import FEATURES, TABLES, NoFamily, explained, missing
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family, parse_address
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.structure import Structure
from kproxy.problems import HostError, TransactionError
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import Delta
from kproxy.table.names import SetName
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, Options, skeleton
from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, service, slices
from tests.unit import make
from tests.unit.namespace import in_fresh_namespace

pytestmark = pytest.mark.lab

UNKNOWN = "chain c { jump nowhere; }"
"""What every nft takes, and no kernel: a chain that is not there."""
HASHED = {"kproxy.io/consistent-hash": "client"}


def maimed(word: str, folder: Path) -> dict[str, str]:
    """An environment in which libnftables calls an expression by a name that no kernel knows."""
    ctypes.CDLL("libnftables.so.1")
    mapped = Path("/proc/self/maps").read_text()
    for path in sorted(set(re.findall(r"/\S+/(?:libnftables|libnftnl)\.so\S*", mapped))):
        before, after = word.encode() + b"\0", word[:-1].encode() + b"X\0"
        library = Path(path).read_bytes()
        assert before in library
        soname = re.match(r"\w+\.so\.\d+", Path(path).name)
        assert soname
        (folder / soname[0]).write_bytes(library.replace(before, after))
    return {"LD_LIBRARY_PATH": str(folder)}


def sync(
    kproxy: Kproxy,
    *manifests: Manifest,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> tuple[int, str]:
    """Exit status, and what was said on standard error."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    done = kproxy.node.run(
        [*prefix, *kproxy.command("sync")],
        input=text,
        capture_output=True,
        env={**os.environ, **(environment or {})},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("numgen", ["lacks numgen (choosing an endpoint at random)", "modprobe nft_numgen"]),
        ("fib", ["lacks fib (", "CONFIG_NFT_FIB_IPV4", "modprobe nft_fib_ipv4", "modprobe nft_fib_ipv6"]),
        ("masq", ["lacks masquerade (", "modprobe nft_masq"]),
        ("counter", ["lacks counters in maps (", "Linux 5.7 or later"]),
    ],
)
def test_a_missing_expression_is_named_and_nothing_is_changed(
    lab: Lab, kproxy: Kproxy, tmp_path: Path, word: str, says: list[str]
) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    before = kproxy.ruleset()
    status, said = sync(
        kproxy, service(), *slices(lab, ["pod-1", "pod-2"]), environment=maimed(word, tmp_path)
    )
    assert status == 1
    assert [part for part in says if part not in said] == []
    assert said.count(" lacks ") == len(Family), said
    assert kproxy.ruleset() == before


def test_without_jhash_only_consistent_hashing_is_missing(lab: Lab, kproxy: Kproxy, tmp_path: Path) -> None:
    environment = maimed("hash", tmp_path)
    plain, members = service(), slices(lab, ["pod-1", "pod-2"])
    assert sync(kproxy, plain, *members, environment=environment) == (0, "")
    before = kproxy.ruleset()
    hashed = {**plain, "metadata": {**plain["metadata"], "annotations": HASHED}}
    status, said = sync(kproxy, hashed, *members, environment=environment)
    assert (status, kproxy.ruleset()) == (1, before)
    assert "lacks jhash" in said
    assert "Only services with the annotation kproxy.io/consistent-hash need it" in said


def test_a_host_without_libnftables_is_told_what_to_install(lab: Lab, kproxy: Kproxy, tmp_path: Path) -> None:
    (tmp_path / "libnftables.so.1").write_bytes(b"")
    status, said = sync(kproxy, service(), environment={"LD_LIBRARY_PATH": str(tmp_path)})
    assert status == 1
    assert "libnftables cannot be used" in said
    assert "apt install nftables" in said


def test_where_no_namespace_can_be_made_the_limit_is_named(lab: Lab, kproxy: Kproxy) -> None:
    no_more = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", no_more, "sh"]
    status, said = sync(kproxy, service(), prefix=inside)
    assert status == 1
    assert "A network namespace cannot be made" in said
    assert "user.max_net_namespaces" in said


def test_ipv6_that_is_turned_off_changes_nothing(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.node.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"], check=True)
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    assert http_get(kproxy.node, SERVICE_IP[4], 80).pod == "pod-1"
    for family in FAMILIES:
        assert SERVICE_IP[family] in kproxy.ruleset()


# --- a kernel without IPv6, by what can be imitated of it ---


NO_FAMILY = 12  # DECnet, which Linux has had no more since 6.1


def test_the_addresses_of_a_family_that_the_kernel_does_not_have_are_none(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = lab.node("n1")
    monkeypatch.setattr(socket, "AF_INET6", NO_FAMILY)
    monkeypatch.setitem(uplink.AF, Family.IPV6, socket.AF_INET6)

    def default_interfaces() -> list[bool]:
        with IPRoute() as ip:
            return [uplink.default_interface(ip, family) is not None for family in Family]

    assert node.inside(host.primary_addresses) == (parse_address(node.address(4)),)
    assert node.inside(default_interfaces) == [True, False]


def no_tables(monkeypatch: pytest.MonkeyPatch) -> Skeleton:
    monkeypatch.setattr(features, "TABLES", TABLES._replace(script=UNKNOWN))
    return skeleton(Family.IPV6, Options(), NO_NUMBERED_CHAINS)


def test_without_ipv6_there_is_no_ipv6_table(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = no_tables(monkeypatch)
    monkeypatch.setattr(socket, "AF_INET6", NO_FAMILY)
    assert isinstance(explained(wanted, TransactionError("no")), NoFamily)


def test_with_ipv6_its_tables_are_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    error = explained(no_tables(monkeypatch), TransactionError("no"))
    assert type(error) is HostError
    assert "the kernel lacks tables (everything)" in str(error)
    assert "CONFIG_NF_TABLES_IPV6" in error.hint


def test_a_family_that_is_not_there_is_left_out_with_a_sentence_where_it_is_wanted() -> None:
    there: list[bool] = []

    def expect(skeleton: Skeleton) -> Structure:
        if there:
            return structure.expected_structure(skeleton)
        raise NoFamily("There is no IPv6.")

    def work() -> None:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV6, Options(), expect)
            wanted = make.desired(make.frontend("[fd00:96::1]:80", ["[fd00::1]:80"]), family=Family.IPV6)
            assert dataplane.reconcile(wanted).warnings == ("There is no IPv6.",)
            assert not dataplane.change(Delta(dict(wanted.specs), {}))
            assert dataplane.reconcile(make.desired(family=Family.IPV6)).warnings == ()
            assert dataplane.read() is None
            there.append(True)
            dataplane.reconcile(make.desired(family=Family.IPV6))
            assert dataplane.change(Delta(dict(wanted.specs), {})).added
            assert dataplane.applied[SetName.SERVICES]

    in_fresh_namespace(work)


# --- the probes themselves ---


@pytest.mark.parametrize("family", Family)
def test_this_host_has_all(family: Family) -> None:
    assert missing(family) == []


@pytest.mark.parametrize("family", Family)
def test_the_kernel_and_the_library_are_told_apart(family: Family) -> None:
    kernel, library = (TABLES._replace(script=script) for script in (UNKNOWN, "chain c { no such thing; }"))
    found = missing(family, [*FEATURES, kernel, library])
    assert [(absence.feature, absence.in_library) for absence in found] == [(kernel, False), (library, True)]


def test_nothing_is_probed_where_the_rules_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "explained", None)
    structure.expected_structure(skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS))


@pytest.mark.parametrize(
    ("number", "says"), [(errno.EPERM, "CAP_NET_ADMIN"), (errno.EPROTONOSUPPORT, "modprobe nf_tables")]
)
def test_a_socket_that_is_refused_is_explained(
    monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(HostError) as caught:
        Netlink()
    assert says in caught.value.hint
