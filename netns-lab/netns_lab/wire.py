"""The links, addresses and routes of a lab, over netlink (pyroute2).

The LAN is a bridge in a separate namespace. A routed veth connects a pod to its
node, as with Calico: the pod has a /32 and a /128 and a link-local gateway
(169.254.1.1, fe80::1), which is only a static neighbour entry with the MAC address
that all node-side ends share. The node has a route to the pod. So the node routes
every packet of the pod, also to other pods on the node, and all its hooks apply.

Sysctls are set before the links that inherit them exist. Duplicate address
detection is off: an address is usable when the function that adds it returns. ICMP
errors are not rate-limited: the tenth refusal in a test arrives like the first.
Redirects are off: a client keeps sending through its configured node.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from zlib import crc32

from pyroute2 import IPRoute

from netns_lab import netns
from netns_lab.topology import LAN, LAN_GATEWAY, Family

GATEWAY: dict[Family, str] = {4: "169.254.1.1", 6: "fe80::1"}
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
HOST_BITS: dict[Family, int] = {4: 32, 6: 128}
ANYWHERE: dict[Family, str] = {4: "0.0.0.0/0", 6: "::/0"}
LAN_BITS: dict[Family, int] = {4: 24, 6: 64}
AF: dict[Family, socket.AddressFamily] = {4: socket.AF_INET, 6: socket.AF_INET6}
IFA_F_NODAD = 0x02
RT_SCOPE_LINK = 253
RTN_LOCAL = 2
NUD_PERMANENT = 0x80
PATIENCE = 60.0

Addresses = Mapping[Family, str]

HOST_SYSCTLS = {
    4: {
        "net/core/somaxconn": 4096,
        "net/ipv4/conf/all/accept_redirects": 0,
        "net/ipv4/conf/default/accept_redirects": 0,
        "net/ipv4/conf/all/rp_filter": 0,
        "net/ipv4/conf/default/rp_filter": 0,
        "net/ipv4/icmp_ratelimit": 0,
    },
    6: {
        "net/ipv6/conf/all/disable_ipv6": 0,
        "net/ipv6/conf/default/disable_ipv6": 0,
        "net/ipv6/conf/all/accept_dad": 0,
        "net/ipv6/conf/default/accept_dad": 0,
        "net/ipv6/conf/all/accept_redirects": 0,
        "net/ipv6/conf/default/accept_redirects": 0,
        "net/ipv6/icmp/ratelimit": 0,
    },
}
NODE_SYSCTLS = {
    4: {
        "net/ipv4/ip_forward": 1,
        "net/ipv4/conf/all/send_redirects": 0,
        "net/ipv4/conf/default/send_redirects": 0,
    },
    6: {"net/ipv6/conf/all/forwarding": 1},
}


def interface_name(host: str) -> str:
    """Return the name of the node's or bridge's end of the link to ``host``: its name, or a 15-byte hash."""
    return host if len(host) <= 15 else f"{host[:6]}-{crc32(host.encode()):08x}"


def set_up_host(namespace: str, families: tuple[Family, ...], forwards: bool = False) -> None:
    """Set the sysctls and the loopback of a namespace that has no links yet."""

    def work(ip: IPRoute) -> None:
        for family in families:
            # NODE_SYSCTLS first: a change of forwarding resets some of the others
            sysctls = (NODE_SYSCTLS[family] if forwards else {}) | HOST_SYSCTLS[family]
            for name, value in sysctls.items():
                Path("/proc/sys", name).write_text(str(value))
        ip.link("set", index=1, state="up")

    _netlink(namespace, work)


def make_lan(namespace: str, families: tuple[Family, ...]) -> None:
    """Create the bridge, with the address of the default gateway. It drops packets without an answer."""

    def work(ip: IPRoute) -> None:
        ip.link("add", ifname="lan", kind="bridge", br_stp_state=0, br_mcast_snooping=0)
        index = _up(ip, "lan")
        for family in families:
            _add_address(ip, index, LAN_GATEWAY[family], LAN_BITS[family])
            _add_route(ip, family, ANYWHERE[family], type="blackhole")
            _wait_until_usable(ip, family, LAN_GATEWAY[family])

    _netlink(namespace, work)


def join_lan(namespace: str, lan: str, host: str, addresses: Addresses, default_via: Addresses) -> None:
    """Connect a node or client (its eth0) to the bridge, with its addresses and default routes."""

    def at_lan(ip: IPRoute) -> None:
        _add_veth(ip, interface_name(host), peer_name="eth0", peer_namespace=namespace)
        index = _up(ip, interface_name(host))
        ip.link("set", index=index, master=ip.link_lookup(ifname="lan")[0])

    def at_host(ip: IPRoute) -> None:
        index = _up(ip, "eth0")
        for family, address in addresses.items():
            if on_lan(address):
                _add_address(ip, index, address, LAN_BITS[family])
            else:
                _add_address(ip, index, address, HOST_BITS[family])
                _add_link_route(ip, family, LAN[family], index)
            _add_route(ip, family, ANYWHERE[family], gateway=default_via[family])
            _wait_until_usable(ip, family, address)

    _netlink(lan, at_lan)
    _netlink(namespace, at_host)


def on_lan(address: str) -> bool:
    return any(ip_address(address) in ip_network(network) for network in LAN.values())


def reach_on_lan(namespace: str, addresses: Addresses) -> None:
    """Add routes to addresses of other networks that are on the LAN to a node."""

    def work(ip: IPRoute) -> None:
        for family, address in addresses.items():
            index = ip.link_lookup(ifname="eth0")[0]
            _add_link_route(ip, family, f"{address}/{HOST_BITS[family]}", index)

    _netlink(namespace, work)


def route_to(namespace: str, destinations: Addresses, via: Addresses) -> None:
    """Add routes to the pod ranges of another node to a node."""

    def work(ip: IPRoute) -> None:
        for family, destination in destinations.items():
            _add_route(ip, family, destination, gateway=via[family])

    _netlink(namespace, work)


def join_pod(node: str, pod: str, name: str, addresses: Addresses) -> None:
    """Add the pod's routed veth. Its end in the pod is eth0; the node's end has the pod's name."""

    def at_node(ip: IPRoute) -> None:
        _add_veth(ip, interface_name(name), peer_name="eth0", peer_namespace=pod, address=GATEWAY_MAC)
        index = _up(ip, interface_name(name))
        for family, address in addresses.items():
            _add_route(ip, family, f"{address}/{HOST_BITS[family]}", oif=index)

    def at_pod(ip: IPRoute) -> None:
        index = _up(ip, "eth0")
        for family, address in addresses.items():
            gateway = GATEWAY[family]
            _add_address(ip, index, address, HOST_BITS[family])
            ip.neigh(
                "add", family=AF[family], dst=gateway, lladdr=GATEWAY_MAC, ifindex=index, state=NUD_PERMANENT
            )
            if family == 4:
                _add_link_route(ip, family, f"{gateway}/32", index)
            _add_route(ip, family, ANYWHERE[family], gateway=gateway, oif=index)
            _wait_until_usable(ip, family, address)

    _netlink(node, at_node)
    _netlink(pod, at_pod)


def part_pod(node: str, name: str) -> None:
    """Delete the pod's veth, and with it the node's routes to the pod."""
    _netlink(node, lambda ip: ip.link("del", ifname=interface_name(name)))


def _netlink(namespace: str, work: Callable[[IPRoute], None]) -> None:
    def connected() -> None:
        with IPRoute() as ip:
            work(ip)

    netns.inside(namespace, connected)


def _add_veth(ip: IPRoute, name: str, *, peer_name: str, peer_namespace: str, **own: str) -> None:
    fd = os.open(netns.RUN / peer_namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ip.link("add", ifname=name, kind="veth", peer={"ifname": peer_name, "net_ns_fd": fd}, **own)
    finally:
        os.close(fd)


def _up(ip: IPRoute, name: str) -> int:
    index: int = ip.link_lookup(ifname=name)[0]
    ip.link("set", index=index, state="up")
    return index


def _add_address(ip: IPRoute, index: int, address: str, bits: int) -> None:
    ip.addr("add", index=index, address=address, prefixlen=bits, flags=IFA_F_NODAD if ":" in address else 0)


def _wait_until_usable(ip: IPRoute, family: Family, address: str) -> None:
    """Wait for the local route of an IPv6 address. The kernel adds it later, in a worker."""
    end = time.monotonic() + PATIENCE
    while family == 6 and ip.route("get", family=AF[family], dst=address)[0]["type"] != RTN_LOCAL:
        if time.monotonic() > end:
            raise TimeoutError(f"{address} has no local route")
        time.sleep(0.001)


def _add_link_route(ip: IPRoute, family: Family, destination: str, index: int) -> None:
    scope = {"scope": RT_SCOPE_LINK} if family == 4 else {}  # without it, the route cannot contain a gateway
    _add_route(ip, family, destination, oif=index, **scope)


def _add_route(ip: IPRoute, family: Family, destination: str, **rest: str | int) -> None:
    ip.route("add", family=AF[family], dst=destination, **rest)
