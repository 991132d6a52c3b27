"""Ranges for allocation: parsing of pools, and the numbers of a span."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from kproxy.cli import settings_from
from kproxy.controlplane.ranges import Pool, Ranges, parse_pool, spans
from kproxy.model import Family
from kproxy.problems import UsageError
from kproxy.settings.derived import DEFAULT_SERVICE_CIDR, ranges, warnings
from tests.cases import cases


def pool(*texts: str) -> list[str]:
    return [str(part) for part in parse_pool(",".join(texts)).ranges]


@cases(
    """
    text                                       found
    192.0.2.0/24                               192.0.2.1-192.0.2.254
    192.0.2.0/30                               192.0.2.1-192.0.2.2
    192.0.2.0/31                               192.0.2.0-192.0.2.1
    192.0.2.7/32                               192.0.2.7-192.0.2.7
    192.0.2.7                                  192.0.2.7-192.0.2.7
    192.0.2.0-192.0.2.255                      192.0.2.0-192.0.2.255
    192.0.2.8 - 192.0.2.9                      192.0.2.8-192.0.2.9
    192.0.2.8-192.0.2.8                        192.0.2.8-192.0.2.8
    2001:db8::/126                             2001:db8::1-2001:db8::3
    2001:db8::/127                             2001:db8::-2001:db8::1
    2001:db8::5-2001:db8::7                    2001:db8::5-2001:db8::7
    2001:db8::5,192.0.2.7                      192.0.2.7-192.0.2.7 2001:db8::5-2001:db8::5
    192.0.2.20-192.0.2.30,192.0.2.1-192.0.2.9  192.0.2.1-192.0.2.9 192.0.2.20-192.0.2.30
    192.0.2.1-192.0.2.9,192.0.2.5-192.0.2.12   192.0.2.1-192.0.2.12
    192.0.2.1-192.0.2.9,192.0.2.3-192.0.2.4    192.0.2.1-192.0.2.9
    192.0.2.1-192.0.2.9,192.0.2.10-192.0.2.12  192.0.2.1-192.0.2.12
    192.0.2.0/24,192.0.2.0/24                  192.0.2.1-192.0.2.254
    """,
    found=str.split,
)
def test_a_pool(text: str, found: list[str]) -> None:
    assert pool(f" {text} ") == found


ORDER = "is not FIRST-LAST: two addresses of one family, in order"
WRONG = {
    "": "'' does not appear to be an IPv4 or IPv6 network",
    "192.0.2.1/24": "192.0.2.1/24 has host bits set",
    "192.0.2.0/24,": "'' does not appear to be an IPv4 or IPv6 network",
    "192.0.2.9-192.0.2.1": f"'192.0.2.9-192.0.2.1' {ORDER}",
    "192.0.2.9-2001:db8::1": f"'192.0.2.9-2001:db8::1' {ORDER}",
    "192.0.2.9-": "'' does not appear to be an IPv4 or IPv6 address",
    "192.0.2.9-12": "'12' does not appear to be an IPv4 or IPv6 address",
    "a-b": "'a' does not appear to be an IPv4 or IPv6 address",
    "::ffff:192.0.2.1-::ffff:192.0.2.2": "'::ffff:192.0.2.1' is not a plain IPv4 or IPv6 address",
    "::ffff:192.0.2.0/120": f"it contains addresses of {ip_network('::ffff:0:0/96')}",
    "127.0.0.0/30": "'127.0.0.0/30' is not allowed: it contains addresses of 127.0.0.0/8",
    "126.0.0.1-128.0.0.1": "it contains addresses of 127.0.0.0/8",
    "0.0.0.0/0": "it contains addresses of 0.0.0.0/8",
    "239.0.0.0/24": "it contains addresses of 224.0.0.0/3",
    "169.254.1.0/24": "it contains addresses of 169.254.0.0/16",
    "fe80::/64": "it contains addresses of fe80::/10",
    "ff02::/64": "it contains addresses of ff00::/8",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=repr)
def test_an_invalid_pool(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        settings_from(["sync", "-f", "x", "--load-balancer-pool", text])
    text = str(caught.value)
    assert text.startswith("--load-balancer-pool: ")
    assert message in text


@pytest.mark.parametrize(
    ("text", "cidr", "overlap"),
    [
        ("10.96.0.0/24", None, ("10.96.0.1-10.96.0.254", "10.96.0.0/12")),
        ("10.111.255.255", None, ("10.111.255.255-10.111.255.255", "10.96.0.0/12")),
        ("10.0.0.0/8", "10.1.0.0/16", ("10.0.0.1-10.255.255.254", "10.1.0.0/16")),
        ("192.0.2.7,fd00::1:0/112", "10.1.0.0/16,fd00::/64", ("fd00::1:1-fd00::1:ffff", "fd00::/64")),
        ("10.112.0.0/24,10.95.255.255", None, None),
        ("fd00::/64", "10.96.0.0/12", None),
    ],
)
def test_a_pool_must_not_overlap_the_service_cidr(
    text: str, cidr: str | None, overlap: tuple[str, str] | None
) -> None:
    flags = ["--load-balancer-pool", text, *(("--service-cidr", cidr) if cidr else ())]
    settings = settings_from(["sync", "-f", "x", *flags])
    if overlap is None:
        assert ranges(settings).pool.text == text
        return
    with pytest.raises(UsageError) as caught:
        ranges(settings)
    assert str(caught.value) == "--load-balancer-pool {} and --service-cidr {} overlap.".format(*overlap)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--load-balancer-pool 10.244.1.9 --cluster-cidr 10.244.0.0/16",
            "--load-balancer-pool 10.244.1.9-10.244.1.9 and --cluster-cidr 10.244.0.0/16 overlap.",
        ),
        ("--cluster-cidr 10.0.0.0/8", ""),
        ("--service-cidr 10.96.0.0/16 --cluster-cidr 10.244.0.0/16,fd00::/48", ""),
    ],
)
def test_cidrs_and_the_pool_must_not_overlap(flags: str, message: str) -> None:
    settings = settings_from(["compile", "-f", "x", *flags.split()])
    if message:
        with pytest.raises(UsageError) as caught:
            ranges(settings)
        assert str(caught.value) == message
    else:
        ranges(settings)


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("--service-cidr 10.96.0.0/16 --cluster-cidr 10.0.0.0/8", [("10.0.0.0/8", "10.96.0.0/16")]),
        ("--service-cidr 10.96.0.0/16,fd00::/112 --cluster-cidr fd00::/48", [("fd00::/48", "fd00::/112")]),
        ("--service-cidr 10.96.0.0/16 --cluster-cidr 10.244.0.0/16,fd00::/48", []),
        ("--cluster-cidr 10.0.0.0/8", []),
    ],
)
def test_a_cluster_cidr_that_overlaps_the_service_cidr_is_a_warning(
    flags: str, found: list[tuple[str, str]]
) -> None:
    chosen = settings_from(["compile", "-f", "x", *flags.split()])
    dropped = "packets to a pod's address in --service-cidr are dropped"
    assert warnings(chosen) == [
        f"--cluster-cidr {pods} and --service-cidr {services} overlap: {dropped}" for pods, services in found
    ]
    assert ranges(chosen).service_cidrs == (chosen.service_cidr or (DEFAULT_SERVICE_CIDR,))


@cases(
    """
    flags                                                          addresses  ports
    -                                                              -          -
    --service-cidr 10.96.0.0/12                                    yes        -
    --service-node-port-range 30000-32767                          -          yes
    --service-cidr 10.66.0.0/16 --service-node-port-range 1-65535  yes        yes
    """,
    addresses=bool,
    ports=bool,
)
def test_a_range_restricts_only_where_it_was_set(flags: str, addresses: bool, ports: bool) -> None:
    found = ranges(settings_from(["sync", "-f", "x", *flags.split()]))
    assert (found.restricts_addresses, found.restricts_ports) == (addresses, ports)


def test_without_the_flag_there_is_no_pool() -> None:
    assert ranges(settings_from(["sync", "-f", "x"])).pool == Pool((), "")


@cases(
    """
    text                                                  name
    192.0.2.7                                             loadBalancer/ip
    192.0.2.1-192.0.2.3,192.0.2.10-192.0.2.12,192.0.2.20  loadBalancer/ip
    2001:db8::/124,2001:db8::1:0/124,192.0.2.0/24         loadBalancer/ip6
    """
)
def test_a_span_yields_every_number_once(text: str, name: str) -> None:
    own_pool = parse_pool(text)
    span = spans(Ranges((), (30000, 32767), own_pool))[name]
    family = Family(name.rpartition("/")[2])
    numbers = [n for r in own_pool.ranges if r.family is family for n in range(r.first, r.last + 1)]
    for own in "abcdef":
        values = list(span.values_from(own))
        assert sorted(values) == numbers
        assert all(map(span.has, values))
    assert span.size == len(numbers)
    assert not span.has(numbers[0] - 1)
    assert not span.has(numbers[-1] + 1)


def test_the_static_band_comes_last() -> None:
    span = spans(Ranges((ip_network("10.96.0.0/24"),), (1, 1)))["ip"]
    values = [str(ip_address(value)) for value in span.values_from("a")]
    assert sorted(values[-16:], key=ip_address) == [f"10.96.0.{n}" for n in range(1, 17)]
    assert len(set(values)) == len(values) == 254
