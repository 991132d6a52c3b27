"""Hosts that lack a feature: kproxy's messages, and that the programmed tables stay.

A kernel without an expression is simulated (tests/lacking.py): kproxy sends another name of the expression,
so that the kernel rejects it as an unknown one.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.netns import in_fresh_namespace
from netns_lab.probe import http_get

from kproxy.kernel import features, host, rehearsal, uplink
from kproxy.kernel.features import FEATURES, TABLES, Content, explain, missing_features
from kproxy.kernel.fresh_namespace import netfilter_socket
from kproxy.kernel.netlink.core.codec import BatchMessage
from kproxy.kernel.netlink.route import is_local
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.model import Family, parse_address
from kproxy.nft.rules import Conclusion, rule
from kproxy.nft.ruleset import Chain, Skeleton
from kproxy.nft.structure import Structure
from kproxy.problems import HostError, KproxyError, TransactionError, UnsupportedFamily
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.compile import Delta
from kproxy.table.layout import SetName
from kproxy.table.skeleton import NO_NUMBERED_CHAINS, Options, skeleton
from tests.forkserver import ROOT
from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, service, slices
from tests.unit import make

pytestmark = pytest.mark.lab

HASHED = {"kproxy.io/consistent-hash": "client"}


def sync(
    kproxy: Kproxy,
    *manifests: Manifest,
    lacking: str = "",
    prefix: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> tuple[int, str]:
    """Run a sync, with a kernel that lacks an expression. Returns the exit status and standard error."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    program = ["-m", "tests.lacking", lacking] if lacking else ["-m", "kproxy"]
    command = [*prefix, sys.executable, *program, *kproxy.arguments("sync"), *flags]
    done = kproxy.node.run(command, input=text, capture_output=True, cwd=ROOT)
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
    lab: Lab, kproxy: Kproxy, word: str, messages: list[str]
) -> None:
    kproxy.sync(service(), *slices(lab, ["pod-1"]))
    before = kproxy.ruleset()
    status, errors = sync(kproxy, service(), *slices(lab, ["pod-1", "pod-2"]), lacking=word)
    assert status == 1
    assert [part for part in messages if part not in errors] == []
    assert errors.count(" lacks ") == len(Family), errors
    assert kproxy.ruleset() == before


@pytest.mark.parametrize("flags", [[], ["--dry-run"]])
def test_the_error_of_a_new_table_is_the_same(lab: Lab, kproxy: Kproxy, flags: list[str]) -> None:
    status, errors = sync(kproxy, service(), *slices(lab, ["pod-1"]), lacking="masq", flags=flags)
    assert (status, errors.count(" lacks masquerade (")) == (1, len(Family)), errors


def test_without_jhash_only_consistent_hashing_is_missing(lab: Lab, kproxy: Kproxy) -> None:
    plain, members = service(), slices(lab, ["pod-1", "pod-2"])
    assert sync(kproxy, plain, *members, lacking="hash") == (0, "")
    before = kproxy.ruleset()
    hashed = {**plain, "metadata": {**plain["metadata"], "annotations": HASHED}}
    status, errors = sync(kproxy, hashed, *members, lacking="hash")
    assert (status, kproxy.ruleset()) == (1, before)
    assert "lacks jhash" in errors
    assert "Only Services with the annotation kproxy.io/consistent-hash need it" in errors


def test_a_feature_that_one_family_lacks_does_not_affect_the_other(lab: Lab, kproxy: Kproxy) -> None:
    web = service(), *slices(lab, ["pod-1"])
    status, errors = sync(kproxy, *web, lacking="numgen@ip6")
    assert status == 1
    assert "table ip6: IPv6 services cannot be programmed: the kernel lacks numgen" in errors
    assert http_get(lab.pod("pod-3"), SERVICE_IP[4], 80).pod == "pod-1"
    kproxy.sync(*web)
    assert http_get(lab.pod("pod-3"), SERVICE_IP[6], 80).pod == "pod-1"


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


OTHER_ROUTES = (
    "-4 route add default dev eth0 table 100 src {0} metric 1",  # of a tunnel, say
    "-4 route add local default dev lo table 101",  # of a transparent proxy
    "-4 route add unreachable default metric 1",
    "-6 route add local default dev lo table 101",
    "-6 route add unreachable default metric 1",
)


def test_default_routes_of_some_packets_only_do_not_choose_the_uplink(lab: Lab) -> None:
    node = lab.node("n1")
    own = tuple(parse_address(node.address(family)) for family in FAMILIES)
    node.run(["ip", "addr", "add", VIPS["an IPv4 /32"][0], "dev", "eth0"], check=True)
    for route in OTHER_ROUTES:
        words = route.format(VIPS["an IPv4 /32"][0].partition("/")[0]).split()
        node.run(["ip", *words], check=True)
    assert node.inside(host.primary_addresses) == own
    expected = node.inside(lambda: socket.if_nametoindex("eth0"))
    assert [node.inside(partial(uplink.default_interface, family)) for family in Family] == [expected] * 2


@pytest.mark.parametrize("setting", [0, 1])
def test_which_addresses_are_this_hosts_does_not_depend_on_nonlocal_bind(lab: Lab, setting: int) -> None:
    node = lab.node("n1")
    for protocol in ("ipv4", "ipv6"):
        path = Path(f"/proc/sys/net/{protocol}/ip_nonlocal_bind")
        node.inside(partial(path.write_text, str(setting)))
    ours = ["127.0.0.1", "127.3.2.1", "::1", *(node.address(family) for family in FAMILIES)]
    others = ["192.0.2.1", "10.244.1.2", "2001:db8::1", "255.255.255.255", "224.0.0.1", "ff02::1"]
    for address in ours + others:
        found = node.inside(partial(is_local, parse_address(address)))
        assert found == (address in ours), address


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


def unknown(_: Family) -> Content:
    """A content that every kernel rejects: it jumps to a chain that does not exist."""
    return Content(chains=(Chain("c", (rule(Conclusion("jump nowhere")),), ""),))


def without_tables(monkeypatch: pytest.MonkeyPatch) -> KproxyError:
    """Return the error of a kernel without IPv6 tables."""
    monkeypatch.setattr(features, "TABLES", TABLES._replace(test=unknown))
    wanted = skeleton(Family.IPV6, Options(), NO_NUMBERED_CHAINS)
    with Netlink(netfilter_socket) as netlink:
        return explain(netlink, wanted, TransactionError("no"))


def test_without_ipv6_there_is_no_ipv6_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "AF_INET6", NO_FAMILY)
    assert isinstance(without_tables(monkeypatch), UnsupportedFamily)


def test_with_ipv6_missing_tables_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    error = without_tables(monkeypatch)
    assert type(error) is HostError
    assert "the kernel lacks tables (everything)" in str(error)
    assert "CONFIG_NF_TABLES_IPV6" in error.hint


def test_an_unsupported_family_is_left_out_with_a_warning() -> None:
    supported: list[bool] = []

    class Refusing(Netlink):
        def commit(self, contents: Iterable[BatchMessage]) -> int:
            if supported:
                return super().commit(contents)
            raise NetlinkError(errno.EOPNOTSUPP)

    def expect(skeleton: Skeleton) -> Structure:
        raise UnsupportedFamily("There is no IPv6.")

    def work() -> None:
        with Refusing() as netlink:
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
def test_only_missing_features_are_found(family: Family) -> None:
    missing = TABLES._replace(name="another one", test=unknown)
    with Netlink(netfilter_socket) as netlink:
        assert missing_features(netlink, family, [*FEATURES, missing]) == [missing]
        assert missing_features(netlink, family) == []


def test_features_are_not_tried_if_the_rules_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "explain", None)
    rehearsal.expected_structure(skeleton(Family.IPV4, Options(), NO_NUMBERED_CHAINS))


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
