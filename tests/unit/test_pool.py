"""Load-balancer addresses out of --load-balancer-pool: who gets which, by example."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from kproxy.controlplane.ledger import NOTHING, Allocations
from kproxy.controlplane.ranges import Pool, Ranges, parse_pool
from kproxy.controlplane.settle import Resolution
from kproxy.model import FrontendKind, Node, format_address, parse_address
from tests.unit.make import name, resolved, service

CIDRS = (ip_network("10.96.0.0/16"), ip_network("fd00:96::/112"))
PORTS = (30000, 32767)
NO_POOL = Ranges(CIDRS, PORTS)
V4, BOTH = "192.0.2.1-192.0.2.3", "192.0.2.1-192.0.2.3,2001:db8::1-2001:db8::3"


def pool(text: str) -> Ranges:
    return Ranges(CIDRS, PORTS, parse_pool(text) if text else Pool((), ""))


def balanced(own: str = "web", status: Any = None, **spec: Any) -> dict[str, Any]:
    made = service(own, type="LoadBalancer", **spec)
    return made if status is None else {**made, "status": {"loadBalancer": {"ingress": status}}}


DUAL = {"ipFamilyPolicy": "RequireDualStack"}


ELSEWHERE = Node("n1", (), (parse_address("203.0.113.250"),))


def given(
    *objects: dict[str, Any], text: str = BOTH, past: Allocations = NOTHING, node: Node = ELSEWHERE
) -> Resolution:
    return resolved(objects, pool(text), past, node)


def lb_ips(outcome: Resolution, own: str = "web") -> list[str]:
    return [format_address(address) for address in outcome.services[name(own)].load_balancer_ips]


def owners(outcome: Resolution) -> dict[str, str]:
    return {format_address(a): s.name for a, s in outcome.allocations.pool_addresses().items()}


def complaints(outcome: Resolution) -> list[tuple[str, str, str]]:
    return [(problem.object, problem.field, problem.message) for problem in outcome.problems]


def shown(outcome: Resolution, own: str = "web") -> list[str]:
    """Where its load-balancer frontends are."""
    return [
        str(f)
        for f in outcome.frontends
        if f.kind is FrontendKind.LOAD_BALANCER and f.owner.service == name(own)
    ]


@pytest.mark.parametrize(
    ("text", "spec", "families"),
    [
        (V4, {}, [4]),
        (BOTH, {}, [4]),
        (BOTH, DUAL, [4, 6]),
        (BOTH, {"ipFamilies": ["IPv6"]}, [16]),
        (BOTH, {"ipFamilies": ["IPv6", "IPv4"]}, [6, 4]),
        (V4, DUAL, [4]),
        (V4, {"ipFamilies": ["IPv6", "IPv4"]}, [4]),
        (BOTH, {"loadBalancerClass": "kproxy.io/load-balancer"}, [4]),
        (BOTH, {"loadBalancerClass": ""}, [4]),
        (BOTH, {"loadBalancerClass": "example.com/other"}, []),
        (BOTH, {"loadBalancerClass": "example.com/other", "loadBalancerIP": "192.0.2.1"}, []),
        ("", {}, []),
        ("", {"loadBalancerIP": "192.0.2.1"}, []),
        ("", {"loadBalancerIP": "whatever.example.com"}, []),
        (BOTH, {"type": "NodePort"}, []),
        (BOTH, {"type": "NodePort", "loadBalancerIP": "x"}, []),
        (BOTH, {"type": "ClusterIP", "loadBalancerClass": "kproxy.io/load-balancer"}, []),
    ],
)
def test_who_gets_addresses(text: str, spec: dict[str, Any], families: list[int]) -> None:
    made = balanced()
    made["spec"].update(spec)
    outcome = given(made, text=text)
    assert outcome.problems == []
    addresses = lb_ips(outcome)
    assert [16 if f == 6 else f for f in families] == [
        len(a) for a in outcome.services[name("web")].load_balancer_ips
    ]
    assert owners(outcome) == dict.fromkeys(addresses, "web")
    assert len(shown(outcome)) == len(addresses)


def test_the_address_depends_on_the_name() -> None:
    alone, among = (
        given(balanced("a"), text="192.0.2.0/24"),
        given(*map(balanced, "cba"), text="192.0.2.0/24"),
    )
    assert lb_ips(alone, "a") == lb_ips(among, "a")


STAYS = "192.0.2.3"
"""What web holds already."""


def held(**by: str) -> Allocations:
    """Allocations in which these services were given these addresses."""
    return given(*(balanced(own, loadBalancerIP=ip) for own, ip in by.items())).allocations


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("192.0.2.9", f"192.0.2.9 is not in --load-balancer-pool {BOTH}"),
        ("198.51.100.1", f"198.51.100.1 is not in --load-balancer-pool {BOTH}"),
        ("10.96.0.1", f"10.96.0.1 is not in --load-balancer-pool {BOTH}"),
        ("2001:db8::1", "2001:db8::1 is of a family that the service does not have"),
        ("web.example.com", "'web.example.com' does not appear to be an IPv4 or IPv6 address"),
        ("192.0.2.1", "192.0.2.1 belongs to Service default/other"),
    ],
)
@pytest.mark.parametrize("had", [True, False])
def test_a_request_that_cannot_be_met(asked: str, message: str, had: bool) -> None:
    """The rest of the service is served, with the address that it had, if it had one."""
    past = held(other="192.0.2.1", **({"web": STAYS} if had else {}))
    outcome = given(balanced("other"), balanced(loadBalancerIP=asked), past=past)
    assert complaints(outcome) == [("Service default/web", "spec.loadBalancerIP", message)]
    assert lb_ips(outcome) == ([STAYS] if had else [])
    assert lb_ips(outcome, "other") == ["192.0.2.1"]
    assert outcome.services[name("web")].cluster_ips
    assert outcome.services[name("web")].ports[0].node_port
    assert not outcome.protected(name("web"))
    assert past.held.items() <= outcome.allocations.held.items()


def test_a_request_is_met() -> None:
    outcome = given(balanced(loadBalancerIP="192.0.2.2", **DUAL))
    first, second = lb_ips(outcome)
    assert (first, second.startswith("2001:db8::")) == ("192.0.2.2", True)
    assert outcome.problems == []
    again = given(balanced(**DUAL), past=outcome.allocations)
    assert lb_ips(again) == [first, second]
    moved = given(balanced(loadBalancerIP="192.0.2.3", **DUAL), past=again.allocations)
    assert lb_ips(moved) == ["192.0.2.3", second]
    assert [r.value & 255 for r in moved.allocations.released] == [2]


def test_a_request_wins_over_what_would_be_allocated() -> None:
    (own,) = lb_ips(given(balanced("a")), "a")
    outcome = given(balanced("a"), balanced("b", loadBalancerIP=own))
    assert lb_ips(outcome, "b") == [own]
    assert lb_ips(outcome, "a") != [own]
    assert outcome.problems == []


def test_who_holds_an_address_keeps_it_against_a_request() -> None:
    outcome = given(balanced("a", loadBalancerIP="192.0.2.1"), balanced("b"), past=held(b="192.0.2.1"))
    assert lb_ips(outcome, "b") == ["192.0.2.1"]
    assert lb_ips(outcome, "a") == []


def test_two_services_can_swap_addresses() -> None:
    past = held(a="192.0.2.1", b="192.0.2.2")
    swapped = [balanced("a", loadBalancerIP="192.0.2.2"), balanced("b", loadBalancerIP="192.0.2.1")]
    outcome = given(*swapped, past=past)
    assert owners(outcome) == {"192.0.2.2": "a", "192.0.2.1": "b"}
    assert outcome.problems == []


def test_who_cannot_move_does_not_lose_its_place_to_another_that_could() -> None:
    """a wants what c has, b wants what a has: nobody moves."""
    past = held(a="192.0.2.1", b="192.0.2.2", c="192.0.2.3")
    wishes = [
        balanced("b", loadBalancerIP="192.0.2.1"),
        balanced("a", loadBalancerIP="192.0.2.3"),
        balanced("c"),
    ]
    outcome = given(*wishes, past=past)
    assert owners(outcome) == {"192.0.2.1": "a", "192.0.2.2": "b", "192.0.2.3": "c"}
    assert complaints(outcome) == [
        ("Service default/b", "spec.loadBalancerIP", "192.0.2.1 belongs to Service default/a"),
        ("Service default/a", "spec.loadBalancerIP", "192.0.2.3 belongs to Service default/c"),
    ]


def test_an_exhausted_pool_leaves_the_rest_of_the_service() -> None:
    outcome = given(*map(balanced, "abcd"), text=V4)
    assert complaints(outcome) == [
        ("Service default/d", "status.loadBalancer", f"no IPv4 address is free in --load-balancer-pool {V4}")
    ]
    assert [len(lb_ips(outcome, own)) for own in "abcd"] == [1, 1, 1, 0]
    assert {f.owner.service.name for f in outcome.frontends if f.kind is FrontendKind.CLUSTER_IP} == set(
        "abcd"
    )
    assert not outcome.protected(name("d"))


def test_a_pool_that_is_exhausted_in_one_family() -> None:
    outcome = given(*(balanced(own, **DUAL) for own in "ab"), text="192.0.2.1,2001:db8::1-2001:db8::2")
    assert [len(lb_ips(outcome, own)) for own in "ab"] == [2, 1]
    ((_, _, message),) = complaints(outcome)
    assert message.startswith("no IPv4 address is free in")
    outcome = given(*(balanced(own, **DUAL) for own in "ab"), text="192.0.2.1,2001:db8::1")
    ((_, _, message),) = complaints(outcome)
    assert message.startswith("no IPv4 and no IPv6 address is free in")


def test_a_pool_without_an_address_of_the_families() -> None:
    outcome = given(balanced(ipFamilies=["IPv6"]), text=V4)
    message = f"there is no address of the service's families in --load-balancer-pool {V4}"
    assert complaints(outcome) == [("Service default/web", "status.loadBalancer", message)]


@pytest.mark.parametrize(
    ("status", "ips", "owned"),
    [
        pytest.param([{"ip": "203.0.113.1"}], ["203.0.113.1"], {}, id="of somewhere else"),
        pytest.param([{"ip": "192.0.2.2"}], ["192.0.2.2"], {"192.0.2.2": "web"}, id="of the pool"),
        pytest.param([{"ip": "192.0.2.2", "ipMode": "Proxy"}], [], {}, id="not for nodes"),
        pytest.param([{"hostname": "lb.example.com"}], [], {}, id="a name"),
        pytest.param([], ["192.0.2.3"], {"192.0.2.3": "web"}, id="none"),
    ],
)
def test_a_status_that_names_addresses_is_followed(
    status: Any, ips: list[str], owned: dict[str, str]
) -> None:
    outcome = given(balanced(status=status), past=held(web=STAYS))
    assert (lb_ips(outcome), owners(outcome), outcome.problems) == (ips, owned, [])


def test_what_is_shown_can_be_given_back() -> None:
    """The status that kproxy itself would show changes nothing when it comes in again."""
    first = given(balanced(**DUAL))
    status = [{"ip": ip, "ipMode": "VIP"} for ip in lb_ips(first)]
    again = given(balanced(status=status, **DUAL), past=first.allocations)
    assert again.allocations == first.allocations
    assert lb_ips(again) == lb_ips(first)


NAMING = {
    "a status": balanced("other", status=[{"ip": "192.0.2.1"}], loadBalancerClass="example.com/other"),
    "a status of mode Proxy": balanced("other", status=[{"ip": "192.0.2.1", "ipMode": "Proxy"}]),
    "an external IP": service("other", externalIPs=["192.0.2.1"]),
}


@pytest.mark.parametrize("other", NAMING.values(), ids=NAMING)
def test_what_a_manifest_shows_already_is_not_given_to_others(other: dict[str, Any]) -> None:
    outcome = given(*map(balanced, "abc"), other, text=V4)
    ((_, _, message),) = complaints(outcome)
    assert message == f"no IPv4 address is free in --load-balancer-pool {V4}"
    assert "192.0.2.1" not in [ip for own in "abc" for ip in lb_ips(outcome, own)]


def test_an_address_of_this_node_is_given_only_to_who_asks_for_it() -> None:
    node = Node("n1", (parse_address("192.0.2.1"),), ())
    outcome = given(*map(balanced, "abc"), text=V4, node=node)
    ((_, _, message),) = complaints(outcome)
    assert message == f"no IPv4 address is free in --load-balancer-pool {V4}"
    assert sorted(owners(outcome)) == ["192.0.2.2", "192.0.2.3"]
    asking = given(balanced("a", loadBalancerIP="192.0.2.1"), *map(balanced, "bc"), text=V4, node=node)
    assert (asking.problems, lb_ips(asking, "a")) == ([], ["192.0.2.1"])


def test_two_that_name_one_address_share_it() -> None:
    """It belongs to the first; the second is served as its status says."""
    ports = ({"port": 80}, {"port": 443})
    both = [
        balanced(own, status=[{"ip": "192.0.2.1"}], ports=[port])
        for own, port in zip("ab", ports, strict=True)
    ]
    outcome = given(*both)
    assert owners(outcome) == {"192.0.2.1": "a"}
    assert (shown(outcome, "a"), shown(outcome, "b")) == (["192.0.2.1:80/tcp"], ["192.0.2.1:443/tcp"])
    assert outcome.problems == []


CHANGES: dict[str, tuple[dict[str, Any] | None, str, bool]] = {
    "nothing": (balanced(), BOTH, True),
    "of another type": (service(type="NodePort"), BOTH, False),
    "of another class": (balanced(loadBalancerClass="example.com/other"), BOTH, False),
    "without that family": (balanced(ipFamilies=["IPv6"]), BOTH, False),
    "it is gone": (None, BOTH, False),
    "out of the pool": (balanced(), "192.0.2.1-192.0.2.2", False),
    "no pool": (balanced(), "", False),
    "refused for something else": (balanced(clusterIP="10.0.0.1"), BOTH, True),
    "cannot be read": (balanced(ports=[]), BOTH, True),
}  # fmt: skip


@pytest.mark.parametrize(("change", "text", "stays"), CHANGES.values(), ids=CHANGES)
def test_what_was_given_out(change: dict[str, Any] | None, text: str, stays: bool) -> None:
    past = held(web=STAYS)
    outcome = given(*([change] if change else []), text=text, past=past)
    assert (owners(outcome).get(STAYS) == "web") == stays
    assert (past.held.items() <= outcome.allocations.held.items()) == stays


def test_a_released_address_is_given_to_another_last() -> None:
    past = NOTHING
    for own in "abc":
        past = given(balanced(own), text=V4, past=past).allocations
    released = [str(r) for r, claim in past.released.items() if claim.what == "loadBalancer/ip"]
    held = [str(r) for claim, r in past.held.items() if claim.what == "loadBalancer/ip"]
    assert len({*released, *held}) == 3
    for own, expected in zip("xyz", [*released, *held], strict=True):
        outcome = given(balanced(own), text=V4, past=past)
        past = outcome.allocations
        assert lb_ips(outcome, own) == [expected]


def test_what_was_released_is_not_given_back_where_a_manifest_shows_it_by_now() -> None:
    past = given(past=held(web=STAYS)).allocations
    assert lb_ips(given(balanced(), past=past)) == [STAYS]
    other = service("other", externalIPs=[STAYS])
    assert lb_ips(given(balanced(), other, past=past)) != [STAYS]
