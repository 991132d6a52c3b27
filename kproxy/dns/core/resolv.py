"""resolv.conf: what a host's file says, and the file of a pod."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from kproxy.model import Address, format_address, parse_address

NDOTS = 5
"""Names with fewer dots are first looked up in the domains of the search list, as kubelet configures pods."""
MOST_SERVERS, MOST_DOMAINS, MOST_CHARACTERS = 3, 32, 2048
"""The limits of resolvers, to which kubelet cuts as well."""


class ResolvConf(Struct, frozen=True):
    """The servers and the search list of a file. Lines that cannot be read are left out."""

    servers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    """Names with fewer dots are first looked up in the domains of the search list."""
    hosts: tuple[str, ...] = ()
    """The servers as text, those with a link-local address with their interface: `fe80::1%eth0`."""


def parse(text: str) -> ResolvConf:
    """Parse a resolv.conf. The last `search` or `domain` line counts, as in resolvers."""
    servers: list[Address] = []
    hosts: list[str] = []
    search: tuple[str, ...] = ()
    ndots = 1
    for line in text.splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                text, percent, interface = server.partition("%")
                try:
                    address = parse_address(text)
                except ValueError:
                    continue
                servers.append(address)
                hosts.append(format_address(address) + percent + interface)
            case ["search" | "domain", *domains]:
                search = tuple(domain.removesuffix(".") for domain in domains if domain != ".")
            case ["options", *options]:
                numbers = (each.removeprefix("ndots:") for each in options if each.startswith("ndots:"))
                ndots = next((int(number[:3]) for number in numbers if number.isdecimal()), ndots)
    return ResolvConf(tuple(servers), search, ndots, tuple(hosts))


def pod_resolv_conf(
    namespace: str, domain: str, servers: Iterable[Address], host_search: Iterable[str] = ()
) -> str:
    """Return the file that a kubelet makes for a pod: the cluster's domains first, then the host's."""
    own = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
    search = list(dict.fromkeys((*own, *host_search)))[:MOST_DOMAINS]
    while len(" ".join(search)) > MOST_CHARACTERS and len(search) > len(own):
        search.pop()
    lines = [f"nameserver {format_address(server)}" for server in list(servers)[:MOST_SERVERS]]
    return "\n".join([f"search {' '.join(search)}", *lines, f"options ndots:{NDOTS}"]) + "\n"
