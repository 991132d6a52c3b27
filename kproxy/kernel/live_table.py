"""The elements of a table in the kernel, each read when it is needed, and the handles of its rules.

So a question about one packet takes the same time whatever the number of Services.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kproxy.kernel.netlink.core.codec import attributes, read_string, string
from kproxy.kernel.netlink.core.constants import (
    NFT_MSG_GETRULE,
    NFTA_RULE_CHAIN,
    NFTA_RULE_HANDLE,
    NFTA_RULE_TABLE,
)
from kproxy.kernel.netlink.core.elements import read_element, read_expiration
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.structure import has_table, list_objects
from kproxy.model import Family
from kproxy.nft.elements import Value
from kproxy.table.layout import TABLE, PackedSocket, affinity_key, affinity_map, pack_socket
from kproxy.table.simulator import Affinity, Packet
from kproxy.table.skeleton import INTERVAL_KEYS


class LiveTable(Mapping[str, Mapping[bytes, Value]]):
    """The sets and maps of kproxy's table, by name. A set that does not exist is empty."""

    def __init__(self, netlink: Netlink, family: Family) -> None:
        self._netlink = netlink
        self._family = family
        self._sets: dict[str, LiveSet] = {}

    def exists(self) -> bool:
        """Whether the kernel has the table."""
        return has_table(self._netlink, self._family)

    def __getitem__(self, name: str) -> LiveSet:
        return self._sets.setdefault(name, LiveSet(self._netlink, self._family, name))

    def affinity_of(self, packet: Packet) -> tuple[Affinity, int | None]:
        """Return the affinity entry of the sender, and the seconds until it expires; {} and None without."""
        if packet.protocol is None:
            return {}, None
        entries = self[affinity_map(packet.protocol)]
        key = affinity_key(packet.source, pack_socket(packet.destination, packet.port))
        endpoint = entries.get(key)
        if not isinstance(endpoint, bytes):
            return {}, None
        return {key: PackedSocket(endpoint)}, entries.expiration(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sets)

    def __len__(self) -> int:
        return len(self._sets)


def rule_handles(netlink: Netlink, family: Family) -> dict[str, list[int]]:
    """Return the handles of the rules of kproxy's table, by chain and in order.

    Commits of other programs to other tables do not matter.
    """
    handles: dict[str, list[int]] = {}
    own = string(NFTA_RULE_TABLE, TABLE)
    for content in list_objects(netlink, family, False, NFT_MSG_GETRULE, own):
        found = dict(attributes(content))
        number = int.from_bytes(found[NFTA_RULE_HANDLE], "big")
        handles.setdefault(read_string(found[NFTA_RULE_CHAIN]), []).append(number)
    return handles


class LiveSet(Mapping[bytes, Value]):
    """A set or map. Iteration reads all elements, everything else only the element of a key."""

    def __init__(self, netlink: Netlink, family: Family, name: str) -> None:
        self._netlink = netlink
        self._family = family
        self._name = name

    def __getitem__(self, key: bytes) -> Value:
        element = self._netlink.element(self._family, self._name, key)
        if element is None:
            raise KeyError(key)
        return read_element(element)[1]

    def __iter__(self) -> Iterator[bytes]:
        for element in self._netlink.elements(self._family, self._name):
            yield read_element(element, self._name in INTERVAL_KEYS)[0]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def expiration(self, key: bytes) -> int | None:
        """Return the seconds until an element expires; None if it does not, or does not exist."""
        element = self._netlink.element(self._family, self._name, key)
        return None if element is None else read_expiration(element)
