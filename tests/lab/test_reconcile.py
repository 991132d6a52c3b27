"""After a sync, the tables are correct whatever they contained before, and nothing else is changed."""

from __future__ import annotations

import re

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import http_get, many

from tests.support import FAMILIES, SERVICE_IP, Kproxy, Manifest, changes, service, slices, sticky

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")
TABLES = ("ip", "ip6")


def listing(kproxy: Kproxy, what: str = "ruleset") -> str:
    """Return nft's listing, sorted, without counters and without elements that packets wrote."""
    text = re.sub(r" counter packets \d+ bytes \d+", "", kproxy.nft(f"list {what}"))
    text = re.sub(r"(?<=elements = )\{[^}]*\}", lambda m: str(sorted(re.split(r",\s+", m[0][2:-2]))), text)
    return re.sub(r"(map affinity-\w+ \{[^}]*?)\s+elements = .*", r"\1", text)


@pytest.fixture
def manifests(lab: Lab) -> list[Manifest]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30123}]
    web = service("web", *ports, type="NodePort", **sticky())
    other = service("other", cluster_ips={4: "10.96.10.20", 6: "fd00:96::20"})
    return [web, *slices(lab, PODS, {"http": 8080}), other, *slices(lab, ["pod-1"], name="other")]


def check_service(lab: Lab) -> None:
    for family in FAMILIES:
        assert http_get(lab.pod("pod-1"), SERVICE_IP[family], 80).pod in PODS
        assert http_get(lab.client("outside"), lab.node("n1").address(family), 30123).pod in PODS


def test_a_second_sync_changes_nothing(lab: Lab, kproxy: Kproxy, manifests: list[Manifest]) -> None:
    assert len(changes(kproxy.sync(*manifests), "+")) == 6
    before = kproxy.generation()
    assert "nothing to change" in kproxy.sync(*manifests)
    assert kproxy.generation() == before
    check_service(lab)  # packets write affinity entries, which are not a difference
    assert "nothing to change" in kproxy.sync(*manifests)
    assert kproxy.generation() == before


def test_the_listing_loads_again(lab: Lab, kproxy: Kproxy, manifests: list[Manifest]) -> None:
    kproxy.sync(*manifests)
    http_get(lab.pod("pod-1"), SERVICE_IP[4], 80)
    saved = kproxy.nft("list table ip kproxy")
    empty = lab.client("outside")
    empty.run(["nft", "-f", "-"], input=saved, check=True)
    listed = empty.run(["nft", "list", "table", "ip", "kproxy"], capture_output=True, check=True).stdout
    assert re.sub(r"expires \w+", "", listed) == re.sub(r"expires \w+", "", saved)


DAMAGE = {
    "flushed ruleset": "flush ruleset",
    "missing table": "delete table {t} kproxy",
    "empty chain": "flush chain {t} kproxy services",
    "empty numbered chain": "flush chain {t} kproxy lb-4",
    "empty chain that remembers clients": "flush chain {t} kproxy remember-10800",
    "added rule": "insert rule {t} kproxy services accept",
    "rule added at the end": "add rule {t} kproxy translated accept",
    "foreign chain": "add chain {t} kproxy lb-99; add chain {t} kproxy x; add rule {t} kproxy x accept",
    "foreign base chain": "add chain {t} kproxy x {{ type filter hook forward priority 0; policy drop; }}",
    "foreign set": "add set {t} kproxy evil {{ type mark; }}",
    "foreign set that a rule uses": "add set {t} kproxy evil {{ type mark; }}; "
    "add rule {t} kproxy services meta mark @evil accept",
    "foreign map that leads to a foreign chain": "add chain {t} kproxy evil; "
    "add map {t} kproxy way {{ type mark : verdict; }}; add element {t} kproxy way {{ 7 : goto evil }}",
    "anonymous set": "add rule {t} kproxy services meta mark {{ 7, 8 }} accept",
    "anonymous set in a foreign chain": "add chain {t} kproxy evil; "
    "add rule {t} kproxy evil meta mark vmap {{ 7 : goto services }}",
    "catch-all elements": "add element {t} kproxy services {{ * : goto discard }}; "
    "add element {t} kproxy services-from-outside {{ * : drop }}; "
    "add element {t} kproxy cluster-ips {{ * }}; "
    "add element {t} kproxy endpoints-tcp {{ * : {ip} . 80 }}; "
    "add element {t} kproxy endpoints-udp {{ * : {ip} . 80 }}; "
    "add element {t} kproxy affinity-tcp {{ * : {ip} . 80 }}",
    "element with a protocol that Services do not have": "add element {t} kproxy services "
    '{{ {ip} . icmp . 80 comment "a/b" : goto discard }}',
    "policy of a chain": "chain {t} kproxy postrouting {{ policy drop; }}",
    "dormant table": "table {t} kproxy {{ flags dormant; }}",
    "no services": "flush map {t} kproxy services",
    "no ClusterIPs": "flush set {t} kproxy cluster-ips",
    "no pod CIDRs": "flush set {t} kproxy pod-cidrs",
    "no endpoints": "flush map {t} kproxy endpoints-tcp",
    "other verdicts": "flush map {t} kproxy services; "
    "add element {t} kproxy services {{ {ip} . tcp . 80 : drop, {ip} . udp . 80 : goto lb-1 }}",
    "verdict to a foreign chain": "add chain {t} kproxy evil; add rule {t} kproxy evil accept; "
    "add element {t} kproxy services {{ {ip} . tcp . 99 : goto evil }}",
    "set instead of a map": "flush chain {t} kproxy sticky-4; flush chain {t} kproxy remember-10800; "
    "delete map {t} kproxy affinity-tcp; add set {t} kproxy affinity-tcp {{ type mark; }}",
    "table of another program, with sets of other types": "delete table {t} kproxy; add table {t} kproxy; "
    "add set {t} kproxy services {{ type mark; flags interval; }}; "
    "add element {t} kproxy services {{ 7-9 }}; "
    "add map {t} kproxy endpoints-tcp {{ type mark : mark; }}; "
    "add element {t} kproxy endpoints-tcp {{ 7 : 8 }}; "
    "add map {t} kproxy affinity-rules {{ type mark : mark; flags interval; }}; "
    "add element {t} kproxy affinity-rules {{ 7-9 : 8 }}; "
    "add set {t} kproxy source-ranges {{ type mark; }}; "
    "add element {t} kproxy source-ranges {{ 7 }}; "
    "add map {t} kproxy affinity-tcp {{ type mark : mark; }}; "
    "add element {t} kproxy affinity-tcp {{ 7 : 8 }}",
    "other hook priority": "flush chain {t} kproxy postrouting; delete chain {t} kproxy postrouting; "
    "add chain {t} kproxy postrouting {{ type nat hook postrouting priority 7; }}",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_repaired(lab: Lab, kproxy: Kproxy, manifests: list[Manifest], damage: str) -> None:
    kproxy.sync(*manifests)
    good = listing(kproxy)
    for table, family in zip(TABLES, FAMILIES, strict=True):
        script = damage.format(t=table, ip=SERVICE_IP[family]).replace("; add", "\nadd")
        kproxy.nft(script.replace("; flush", "\nflush").replace("; delete", "\ndelete"))
        if "ruleset" in damage:
            break
    assert listing(kproxy) != good
    kproxy.sync(*manifests)
    assert listing(kproxy) == good
    check_service(lab)
    assert "nothing to change" in kproxy.sync(*manifests)


def test_a_replaced_rule_is_repaired(lab: Lab, kproxy: Kproxy, manifests: list[Manifest]) -> None:
    kproxy.sync(*manifests)
    good = listing(kproxy)
    listed = kproxy.node.run(
        ["nft", "-a", "list", "chain", "ip", "kproxy", "draw-4"], capture_output=True
    ).stdout
    handle = re.findall(r"endpoints-tcp # handle (\d+)", listed)[0]
    kproxy.nft(
        f"replace rule ip kproxy draw-4 handle {handle} "
        "dnat ip to ip daddr . tcp dport . numgen random mod 2 map @endpoints-tcp"
    )
    output = kproxy.sync(*manifests)
    assert changes(output, "!") == ["! rewritten: ip kproxy draw-4"]
    assert listing(kproxy) == good


def test_foreign_tables_are_not_changed(lab: Lab, kproxy: Kproxy, manifests: list[Manifest]) -> None:
    foreign = """
        table inet other {
            set s { type ipv4_addr; elements = { 10.0.0.1 }; }
            chain c {
                type filter hook forward priority 0; policy accept;
                ip saddr @s accept
            }
        }
        table ip kproxy2 {
            chain lb-4 { accept; }
        }
        table arp kproxy {
            chain c { type filter hook input priority 0; policy accept; }
        }
    """
    kproxy.nft(foreign)
    before = kproxy.ruleset()
    kproxy.sync(*manifests)
    kproxy.nft("flush chain ip kproxy services")
    kproxy.sync(*manifests)
    kproxy.sync()
    assert kproxy.cleanup().returncode == 0
    assert kproxy.ruleset() == before


def test_cleanup_removes_everything_of_kproxy(lab: Lab, kproxy: Kproxy, manifests: list[Manifest]) -> None:
    kproxy.sync(*manifests)
    done = kproxy.cleanup("--keep-state")
    assert done.stdout.splitlines() == ["removed table ip kproxy", "removed table ip6 kproxy"]
    assert kproxy.ruleset() == ""
    assert kproxy.state.exists()
    assert kproxy.cleanup().returncode == 0
    assert not kproxy.state.exists()
    again = kproxy.cleanup()
    assert (again.returncode, again.stdout) == (0, "nothing to remove\n")


def test_a_removed_service_leaves_nothing_behind(lab: Lab, kproxy: Kproxy, manifests: list[Manifest]) -> None:
    kproxy.sync(*manifests[3:])
    one = listing(kproxy)
    kproxy.sync(*manifests)
    check_service(lab)
    assert len(changes(kproxy.sync(*manifests[3:]), "-")) == 4
    assert listing(kproxy) == one
    assert "10.96.10.10" not in kproxy.ruleset()  # not even in the affinity maps


def test_changed_options_are_applied(lab: Lab, kproxy: Kproxy, manifests: list[Manifest]) -> None:
    kproxy.sync(*manifests)
    plain = listing(kproxy)
    kproxy.sync(*manifests, flags=["--masquerade-all", "--cluster-cidr", "10.1.0.0/16,10.3.0.0/16"])
    other = kproxy.nft("list table ip kproxy")
    assert "10.1.0.0/16, 10.3.0.0/16" in other
    assert "@cluster-ips masquerade fully-random" in other
    kproxy.sync(*manifests)
    assert listing(kproxy) == plain


def test_endpoints_keep_their_slots(lab: Lab, kproxy: Kproxy) -> None:
    """A change writes as many elements as endpoints changed."""
    kproxy.sync(service(), *slices(lab, PODS))
    output = kproxy.sync(service(), *slices(lab, ["pod-2", "pod-3"]))
    assert [line.partition(" -> ")[2] for line in changes(output, "~")] == [
        f"2 endpoints (-{lab.pod('pod-1').address(4)}:8080)",
        f"2 endpoints (-[{lab.pod('pod-1').address(6)}]:8080)",
    ]
    # The freed slot and the endpoint that moves into it.
    assert "ip: 1 element added, 2 removed" in output
    assert set(many(lab.pod("pod-1"), SERVICE_IP[4], 80, 30)) == {"pod-2", "pod-3"}
