"""Allocation of addresses of --load-balancer-pool, by example."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from kproxy.controlplane.ledger import NOTHING, Allocations
from kproxy.controlplane.ranges import Pool, Ranges, parse_pool
from kproxy.model import FrontendKind, Node, format_address, parse_address
from tests.resolution import Resolution
from tests.unit.make import name, resolved, service

CIDRS = (ip_network("10.96.0.0/16"), ip_network("fd00:96::/112"))
PORTS = (30000, 32767)
V4, BOTH = "192.0.2.1-192.0.2.3", "192.0.2.1-192.0.2.3,2001:db8::1-2001:db8::3"


def pool(text: str) -> Ranges:
    return Ranges(CIDRS, PORTS, parse_pool(text) if text else Pool((), ""))


def balanced(own: str = "web", status: Any = None, **spec: Any) -> dict[str, Any]:
    made = service(own, type="LoadBalancer", **spec)
    return made if status is None else {**made, "status": {"loadBalancer": {"ingress": status}}}


DUAL = {"ipFamilyPolicy": "RequireDualStack"}


OUTSIDE_POOL = Node("n1", (), (parse_address("203.0.113.250"),))


def outcome_of(
    *objects: dict[str, Any], text: str = BOTH, past: Allocations = NOTHING, node: Node = OUTSIDE_POOL
) -> Resolution:
    return resolved(objects, pool(text), past, node)


def lb_ips(outcome: Resolution, own: str = "web") -> list[str]:
    return [format_address(address) for address in outcome.services[name(own)].load_balancer_ips]


def owners(outcome: Resolution) -> dict[str, str]:
    return {format_address(a): s.name for a, s in outcome.allocations.pool_addresses().items()}


def problems_of(outcome: Resolution) -> list[tuple[str, str, str]]:
    return [(problem.object, problem.field, problem.message) for problem in outcome.problems]


def load_balancer_frontends(outcome: Resolution, own: str = "web") -> list[str]:
    """The load-balancer frontends of a Service."""
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
def test_which_services_get_addresses(text: str, spec: dict[str, Any], families: list[int]) -> None:
    made = balanced()
    made["spec"].update(spec)
    outcome = outcome_of(made, text=text)
    assert outcome.problems == []
    addresses = lb_ips(outcome)
    assert [16 if f == 6 else f for f in families] == [
        len(a) for a in outcome.services[name("web")].load_balancer_ips
    ]
    assert owners(outcome) == dict.fromkeys(addresses, "web")
    assert len(load_balancer_frontends(outcome)) == len(addresses)


def test_the_address_depends_on_the_name() -> None:
    alone, among = (
        outcome_of(balanced("a"), text="192.0.2.0/24"),
        outcome_of(*map(balanced, "cba"), text="192.0.2.0/24"),
    )
    assert lb_ips(alone, "a") == lb_ips(among, "a")


STAYS = "192.0.2.3"
"""The address that web holds already."""


def held(**by: str) -> Allocations:
    """Allocations in which these Services have these addresses."""
    return outcome_of(*(balanced(own, loadBalancerIP=ip) for own, ip in by.items())).allocations


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("192.0.2.9", f"192.0.2.9 is not in --load-balancer-pool {BOTH}"),
        ("198.51.100.1", f"198.51.100.1 is not in --load-balancer-pool {BOTH}"),
        ("10.96.0.1", f"10.96.0.1 is not in --load-balancer-pool {BOTH}"),
        ("2001:db8::1", "2001:db8::1 is not of an address family of the Service"),
        ("web.example.com", "'web.example.com' does not appear to be an IPv4 or IPv6 address"),
        ("192.0.2.1", "192.0.2.1 belongs to Service default/other"),
    ],
)
@pytest.mark.parametrize("had", [True, False])
def test_a_request_that_is_refused(requested: str, message: str, had: bool) -> None:
    """The Service is served anyway, with its previous address if it had one."""
    past = held(other="192.0.2.1", **({"web": STAYS} if had else {}))
    outcome = outcome_of(balanced("other"), balanced(loadBalancerIP=requested), past=past)
    assert problems_of(outcome) == [("Service default/web", "spec.loadBalancerIP", message)]
    assert lb_ips(outcome) == ([STAYS] if had else [])
    assert lb_ips(outcome, "other") == ["192.0.2.1"]
    assert outcome.services[name("web")].cluster_ips
    assert outcome.services[name("web")].ports[0].node_port
    assert not outcome.protected(name("web"))
    assert past.held.items() <= outcome.allocations.held.items()


def test_a_request() -> None:
    outcome = outcome_of(balanced(loadBalancerIP="192.0.2.2", **DUAL))
    first, second = lb_ips(outcome)
    assert (first, second.startswith("2001:db8::")) == ("192.0.2.2", True)
    assert outcome.problems == []
    again = outcome_of(balanced(**DUAL), past=outcome.allocations)
    assert lb_ips(again) == [first, second]
    moved = outcome_of(balanced(loadBalancerIP="192.0.2.3", **DUAL), past=again.allocations)
    assert lb_ips(moved) == ["192.0.2.3", second]
    assert [r.value & 255 for r in moved.allocations.released] == [2]


def test_a_request_has_priority_over_allocation() -> None:
    (own,) = lb_ips(outcome_of(balanced("a")), "a")
    outcome = outcome_of(balanced("a"), balanced("b", loadBalancerIP=own))
    assert lb_ips(outcome, "b") == [own]
    assert lb_ips(outcome, "a") != [own]
    assert outcome.problems == []


def test_a_holder_has_priority_over_a_request() -> None:
    outcome = outcome_of(balanced("a", loadBalancerIP="192.0.2.1"), balanced("b"), past=held(b="192.0.2.1"))
    assert lb_ips(outcome, "b") == ["192.0.2.1"]
    assert lb_ips(outcome, "a") == []


def test_two_services_can_swap_addresses() -> None:
    past = held(a="192.0.2.1", b="192.0.2.2")
    swapped = [balanced("a", loadBalancerIP="192.0.2.2"), balanced("b", loadBalancerIP="192.0.2.1")]
    outcome = outcome_of(*swapped, past=past)
    assert owners(outcome) == {"192.0.2.2": "a", "192.0.2.1": "b"}
    assert outcome.problems == []


def test_a_service_that_cannot_move_keeps_its_address() -> None:
    """a requests the address of c, and b that of a. No address moves."""
    past = held(a="192.0.2.1", b="192.0.2.2", c="192.0.2.3")
    requests = [
        balanced("b", loadBalancerIP="192.0.2.1"),
        balanced("a", loadBalancerIP="192.0.2.3"),
        balanced("c"),
    ]
    outcome = outcome_of(*requests, past=past)
    assert owners(outcome) == {"192.0.2.1": "a", "192.0.2.2": "b", "192.0.2.3": "c"}
    assert problems_of(outcome) == [
        ("Service default/b", "spec.loadBalancerIP", "192.0.2.1 belongs to Service default/a"),
        ("Service default/a", "spec.loadBalancerIP", "192.0.2.3 belongs to Service default/c"),
    ]


def test_with_an_exhausted_pool_a_service_is_served_without() -> None:
    outcome = outcome_of(*map(balanced, "abcd"), text=V4)
    assert problems_of(outcome) == [
        ("Service default/d", "status.loadBalancer", f"no IPv4 address is free in --load-balancer-pool {V4}")
    ]
    assert [len(lb_ips(outcome, own)) for own in "abcd"] == [1, 1, 1, 0]
    assert {f.owner.service.name for f in outcome.frontends if f.kind is FrontendKind.CLUSTER_IP} == set(
        "abcd"
    )
    assert not outcome.protected(name("d"))


def test_a_pool_that_is_exhausted_in_one_family() -> None:
    outcome = outcome_of(*(balanced(own, **DUAL) for own in "ab"), text="192.0.2.1,2001:db8::1-2001:db8::2")
    assert [len(lb_ips(outcome, own)) for own in "ab"] == [2, 1]
    ((_, _, message),) = problems_of(outcome)
    assert message.startswith("no IPv4 address is free in")
    outcome = outcome_of(*(balanced(own, **DUAL) for own in "ab"), text="192.0.2.1,2001:db8::1")
    ((_, _, message),) = problems_of(outcome)
    assert message.startswith("no IPv4 and no IPv6 address is free in")


def test_a_pool_without_an_address_of_the_families() -> None:
    outcome = outcome_of(balanced(ipFamilies=["IPv6"]), text=V4)
    message = f"--load-balancer-pool {V4} has no address of the Service's families"
    assert problems_of(outcome) == [("Service default/web", "status.loadBalancer", message)]


@pytest.mark.parametrize(
    ("status", "ips", "owned"),
    [
        pytest.param([{"ip": "203.0.113.1"}], ["203.0.113.1"], {}, id="not in the pool"),
        pytest.param([{"ip": "192.0.2.2"}], ["192.0.2.2"], {"192.0.2.2": "web"}, id="in the pool"),
        pytest.param([{"ip": "192.0.2.2", "ipMode": "Proxy"}], [], {}, id="mode Proxy"),
        pytest.param([{"hostname": "lb.example.com"}], [], {}, id="a host name"),
        pytest.param([], ["192.0.2.3"], {"192.0.2.3": "web"}, id="none"),
    ],
)
def test_a_status_with_addresses(status: Any, ips: list[str], owned: dict[str, str]) -> None:
    outcome = outcome_of(balanced(status=status), past=held(web=STAYS))
    assert (lb_ips(outcome), owners(outcome), outcome.problems) == (ips, owned, [])


def test_a_status_as_kproxy_prints_it_changes_nothing() -> None:
    first = outcome_of(balanced(**DUAL))
    status = [{"ip": ip, "ipMode": "VIP"} for ip in lb_ips(first)]
    again = outcome_of(balanced(status=status, **DUAL), past=first.allocations)
    assert again.allocations == first.allocations
    assert lb_ips(again) == lb_ips(first)


USES = {
    "a status": balanced("other", status=[{"ip": "192.0.2.1"}], loadBalancerClass="example.com/other"),
    "a status of mode Proxy": balanced("other", status=[{"ip": "192.0.2.1", "ipMode": "Proxy"}]),
    "an external IP": service("other", externalIPs=["192.0.2.1"]),
}


@pytest.mark.parametrize("other", USES.values(), ids=USES)
def test_an_address_in_a_manifest_is_not_allocated(other: dict[str, Any]) -> None:
    outcome = outcome_of(*map(balanced, "abc"), other, text=V4)
    ((_, _, message),) = problems_of(outcome)
    assert message == f"no IPv4 address is free in --load-balancer-pool {V4}"
    assert "192.0.2.1" not in [ip for own in "abc" for ip in lb_ips(outcome, own)]


def test_an_address_of_this_node_is_allocated_only_on_request() -> None:
    node = Node("n1", (parse_address("192.0.2.1"),), ())
    outcome = outcome_of(*map(balanced, "abc"), text=V4, node=node)
    ((_, _, message),) = problems_of(outcome)
    assert message == f"no IPv4 address is free in --load-balancer-pool {V4}"
    assert sorted(owners(outcome)) == ["192.0.2.2", "192.0.2.3"]
    requesting = outcome_of(
        balanced("a", loadBalancerIP="192.0.2.1"), *map(balanced, "bc"), text=V4, node=node
    )
    assert (requesting.problems, lb_ips(requesting, "a")) == ([], ["192.0.2.1"])


def test_two_services_with_one_address_in_their_status() -> None:
    """It is allocated to the first one. The second is served on it, too, as its status requires."""
    ports = ({"port": 80}, {"port": 443})
    both = [
        balanced(own, status=[{"ip": "192.0.2.1"}], ports=[port])
        for own, port in zip("ab", ports, strict=True)
    ]
    outcome = outcome_of(*both)
    assert owners(outcome) == {"192.0.2.1": "a"}
    assert (load_balancer_frontends(outcome, "a"), load_balancer_frontends(outcome, "b")) == (
        ["192.0.2.1:80/tcp"],
        ["192.0.2.1:443/tcp"],
    )
    assert outcome.problems == []


CHANGES: dict[str, tuple[dict[str, Any] | None, str, bool]] = {
    "nothing": (balanced(), BOTH, True),
    "another type": (service(type="NodePort"), BOTH, False),
    "another class": (balanced(loadBalancerClass="example.com/other"), BOTH, False),
    "without that family": (balanced(ipFamilies=["IPv6"]), BOTH, False),
    "deleted": (None, BOTH, False),
    "no longer in the pool": (balanced(), "192.0.2.1-192.0.2.2", False),
    "no pool": (balanced(), "", False),
    "refused for another reason": (balanced(clusterIP="10.0.0.1"), BOTH, True),
    "unreadable": (balanced(ports=[]), BOTH, True),
}  # fmt: skip


@pytest.mark.parametrize(("change", "text", "stays"), CHANGES.values(), ids=CHANGES)
def test_which_allocations_stay(change: dict[str, Any] | None, text: str, stays: bool) -> None:
    past = held(web=STAYS)
    outcome = outcome_of(*([change] if change else []), text=text, past=past)
    assert (owners(outcome).get(STAYS) == "web") == stays
    assert (past.held.items() <= outcome.allocations.held.items()) == stays


def test_released_addresses_are_reused_last() -> None:
    past = NOTHING
    for own in "abc":
        past = outcome_of(balanced(own), text=V4, past=past).allocations
    released = [str(r) for r, claim in past.released.items() if claim.what == "loadBalancer/ip"]
    held = [str(r) for claim, r in past.held.items() if claim.what == "loadBalancer/ip"]
    assert len({*released, *held}) == 3
    for own, expected in zip("xyz", [*released, *held], strict=True):
        outcome = outcome_of(balanced(own), text=V4, past=past)
        past = outcome.allocations
        assert lb_ips(outcome, own) == [expected]


def test_a_released_address_in_a_manifest_is_not_allocated_again() -> None:
    past = outcome_of(past=held(web=STAYS)).allocations
    assert lb_ips(outcome_of(balanced(), past=past)) == [STAYS]
    other = service("other", externalIPs=[STAYS])
    assert lb_ips(outcome_of(balanced(), other, past=past)) != [STAYS]
