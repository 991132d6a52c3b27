"""Hosts that lack a feature: kproxy's messages, and that the programmed tables stay.

A kernel without an expression is simulated: in a copy of libnftables and libnftnl the expression has
another name, so that the kernel rejects it as an unknown expression.
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

from kproxy.kernel import features, host, structure, uplink
from kproxy.kernel.features import FEATURES, TABLES, UnsupportedFamily, explain, missing_features
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
"""A script that every nft accepts and every kernel rejects: it jumps to a chain that does not exist."""
HASHED = {"kproxy.io/consistent-hash": "client"}


def without_expression(word: str, folder: Path) -> dict[str, str]:
    """An environment in which libnftables uses a name for an expression that no kernel knows."""
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
    """Run a sync. Returns the exit status and the content of standard error."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    done = kproxy.node.run(
        [*prefix, *kproxy.command("sync")],
        input=text,
        capture_output=True,
        env={**os.environ, **(environment or {})},
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("word", "messages"),
    [
        ("numgen", ["lacks numgen (choosing an endpoint at random)", "modprobe nft_numgen"]),
        ("fib", ["lacks fib (", "CONFIG_NFT_FIB_IPV4", "modprobe nft_fib_ipv4", "modprobe nft_fib_ipv6"]),
        ("masq", ["lacks masquerade (", "modprobe nft_masq"]),
        ("counter", ["lacks counters in maps (", "Linux 5.7 or later"]),
    ],
)
def test_an_error_names_the_missing_expression_and_nothing_changes(
    lab: Lab, kproxy: Kproxy, tmp_path: Path, word: str, messages: list[str]
) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    before = kproxy.ruleset()
    status, errors = sync(
        kproxy, service(), *slices(lab, ["pod-1", "pod-2"]), environment=without_expression(word, tmp_path)
    )
    assert status == 1
    assert [part for part in messages if part not in errors] == []
    assert errors.count(" lacks ") == len(Family), errors
    assert kproxy.ruleset() == before


def test_without_jhash_only_consistent_hashing_is_missing(lab: Lab, kproxy: Kproxy, tmp_path: Path) -> None:
    environment = without_expression("hash", tmp_path)
    plain, members = service(), slices(lab, ["pod-1", "pod-2"])
    assert sync(kproxy, plain, *members, environment=environment) == (0, "")
    before = kproxy.ruleset()
    hashed = {**plain, "metadata": {**plain["metadata"], "annotations": HASHED}}
    status, errors = sync(kproxy, hashed, *members, environment=environment)
    assert (status, kproxy.ruleset()) == (1, before)
    assert "lacks jhash" in errors
    assert "Only Services with the annotation kproxy.io/consistent-hash need it" in errors


def test_without_libnftables_the_error_names_the_packages(lab: Lab, kproxy: Kproxy, tmp_path: Path) -> None:
    (tmp_path / "libnftables.so.1").write_bytes(b"")
    status, errors = sync(kproxy, service(), environment={"LD_LIBRARY_PATH": str(tmp_path)})
    assert status == 1
    assert "libnftables cannot be used" in errors
    assert "apt install nftables" in errors


def test_the_error_names_the_limit_of_namespaces(lab: Lab, kproxy: Kproxy) -> None:
    limit = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    inside = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", limit, "sh"]
    status, errors = sync(kproxy, service(), prefix=inside)
    assert status == 1
    assert "Cannot create a network namespace" in errors
    assert "user.max_net_namespaces" in errors


def test_disabled_ipv6_changes_nothing(lab: Lab, kproxy: Kproxy) -> None:
    kproxy.node.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"], check=True)
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    assert http_get(kproxy.node, SERVICE_IP[4], 80).pod == "pod-1"
    for family in FAMILIES:
        assert SERVICE_IP[family] in kproxy.ruleset()


VIPS = {
    "a /128": ["fd77::aa/128"],
    "a deprecated one": ["fd77::ab/64", "preferred_lft", "0"],
    "a /128 that is deprecated": ["fd77::ac/128", "preferred_lft", "0"],
    "a temporary one": ["fd77::ad/64", "valid_lft", "600", "preferred_lft", "300"],
    "one of the same kind": ["fd77::ae/64"],
    "an IPv4 /32": ["192.168.77.99/32"],
    "another one of an IPv4 network": ["192.168.77.98/24"],
}


def test_an_added_address_does_not_replace_the_primary_one(lab: Lab) -> None:
    node = lab.node("n1")
    own = tuple(parse_address(node.address(family)) for family in FAMILIES)
    for what, words in VIPS.items():
        nodad = ["nodad"] if ":" in words[0] else []
        node.run(["ip", "addr", "add", *words, "dev", "eth0", *nodad], check=True)
        assert node.inside(host.primary_addresses) == own, what


# --- a kernel without IPv6, partly simulated ---


NO_FAMILY = 12  # DECnet, which was removed from Linux in 6.1


def test_an_unsupported_family_has_no_addresses(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    node = lab.node("n1")
    monkeypatch.setattr(socket, "AF_INET6", NO_FAMILY)
    monkeypatch.setitem(uplink.AF, Family.IPV6, socket.AF_INET6)

    def default_interfaces() -> list[bool]:
        return [uplink.default_interface(family) is not None for family in Family]

    assert node.inside(host.primary_addresses) == (parse_address(node.address(4)),)
    assert node.inside(default_interfaces) == [True, False]


def no_tables(monkeypatch: pytest.MonkeyPatch) -> Skeleton:
    monkeypatch.setattr(features, "TABLES", TABLES._replace(script=UNKNOWN))
    return skeleton(Family.IPV6, Options(), NO_NUMBERED_CHAINS)


def test_without_ipv6_there_is_no_ipv6_table(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = no_tables(monkeypatch)
    monkeypatch.setattr(socket, "AF_INET6", NO_FAMILY)
    assert isinstance(explain(wanted, TransactionError("no")), UnsupportedFamily)


def test_with_ipv6_missing_tables_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    error = explain(no_tables(monkeypatch), TransactionError("no"))
    assert type(error) is HostError
    assert "the kernel lacks tables (everything)" in str(error)
    assert "CONFIG_NF_TABLES_IPV6" in error.hint


def test_an_unsupported_family_is_left_out_with_a_warning() -> None:
    supported: list[bool] = []

    def expect(skeleton: Skeleton) -> Structure:
        if supported:
            return structure.expected_structure(skeleton)
        raise UnsupportedFamily("There is no IPv6.")

    def work() -> None:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV6, Options(), expect)
            wanted = make.desired(make.frontend("[fd00:96::1]:80", ["[fd00::1]:80"]), family=Family.IPV6)
            assert dataplane.reconcile(wanted).warnings == ("There is no IPv6.",)
            assert not dataplane.change(Delta(dict(wanted.specs), {}))
            assert dataplane.reconcile(make.desired(family=Family.IPV6)).warnings == ()
            assert dataplane.read() is None
            supported.append(True)
            dataplane.reconcile(make.desired(family=Family.IPV6))
            assert dataplane.change(Delta(dict(wanted.specs), {})).added
            assert dataplane.applied[SetName.SERVICES]

    in_fresh_namespace(work)


# --- the tests of features ---


@pytest.mark.parametrize("family", Family)
def test_this_host_has_all_features(family: Family) -> None:
    assert missing_features(family) == []


@pytest.mark.parametrize("family", Family)
def test_missing_features_of_the_kernel_and_of_the_library(family: Family) -> None:
    kernel, library = (TABLES._replace(script=script) for script in (UNKNOWN, "chain c { no such thing; }"))
    found = missing_features(family, [*FEATURES, kernel, library])
    assert [(one.feature, one.in_library) for one in found] == [(kernel, False), (library, True)]


def test_features_are_not_tried_if_the_rules_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "explain", None)
    structure.expected_structure(skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS))


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.EPERM, "CAP_NET_ADMIN"), (errno.EPROTONOSUPPORT, "modprobe nf_tables")]
)
def test_the_hint_of_a_refused_netlink_socket(
    monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(HostError) as caught:
        Netlink()
    assert hint in caught.value.hint
