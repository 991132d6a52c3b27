"""What this host says about DNS: its own resolvers, and who may ask them through kproxy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path

from kproxy.dns.core.connect import STUBS
from kproxy.kernel.host import RESOLV_CONF, resolv_conf
from kproxy.kernel.netlink.route import is_local
from kproxy.model import Address, Network
from kproxy.settings.settings import DNS_PORT
from kproxy.settings.text import SocketAddress

OF_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
"""The upstream servers of systemd-resolved."""


class HostServers:
    """The servers in the host's resolv.conf. The file is read again when it has changed."""

    def __init__(self, own: Iterable[SocketAddress], path: Path = RESOLV_CONF) -> None:
        """`own`: the addresses of kproxy's server, which must not ask itself."""
        self._own = frozenset(own)
        self._path = path
        self._read: tuple[object, ...] = ()
        self._servers: tuple[SocketAddress, ...] = ()

    def servers(self) -> Sequence[SocketAddress]:
        """Return the servers."""
        read = (_version(self._path), _version(OF_RESOLVED))
        if read != self._read:
            self._read, self._servers = read, tuple(self._find())
        return self._servers

    def _find(self) -> Iterable[SocketAddress]:
        found = resolv_conf(self._path).hosts
        if found and STUBS.issuperset(found):
            found = resolv_conf(OF_RESOLVED).hosts
        servers = (SocketAddress(host, DNS_PORT) for host in dict.fromkeys(found))
        return (server for server in servers if server not in self._own)


def _version(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def may_recurse(host: str, networks: Collection[Network], pods: Callable[[], Collection[Address]]) -> bool:
    """Whether a client may ask for names outside the zone: it is a pod, or this host itself.

    `networks` are those of pods, and `pods` returns the addresses of known ones.
    """
    address = ip_address(host.partition("%")[0])
    if address.is_loopback or address.packed in pods():
        return True
    return any(address.version == each.version and address in each for each in networks) or is_local(
        address.packed
    )
