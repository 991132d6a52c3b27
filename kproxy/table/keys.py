"""The keys and values of kproxy's sets and maps. Only this module packs and slices them.

A key or value is a sequence of fields, in the kernel's format. An address is in network order (4 or 16
bytes). Every other field has four bytes. A protocol is in the first of them, a port in the first two, in
network order. A slot fills all four in host order, as `numgen` and `jhash` yield it. So desired elements
and a dump of the kernel can be compared byte by byte.

Each kind of key has a type. At run time all of them are plain bytes, because a table can have a million
keys.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NewType, TypeGuard, cast

from kproxy.model import Address, Protocol, format_socket
from kproxy.nft.elements import Value

FrontendKey = NewType("FrontendKey", bytes)
"""address . protocol . port: a frontend, in the verdict maps and in `source-restricted`."""
PackedSocket = NewType("PackedSocket", bytes)
"""address . port: an endpoint, or a frontend of the protocol that the context names."""
SlotKey = NewType("SlotKey", bytes)
"""address . port . slot: a frontend's slot, in `endpoints-PROTOCOL`."""
AffinityKey = NewType("AffinityKey", bytes)
"""client . address . port: a client and a frontend, in `affinity-PROTOCOL`."""
RangeKey = NewType("RangeKey", bytes)
"""frontend . first address . frontend . last address: one range of clients, in `source-ranges`."""

_PROTOCOLS = {protocol: bytes([protocol.number, 0, 0, 0]) for protocol in Protocol}
_NUMBERS = {protocol.number: protocol for protocol in Protocol}


def pack_port(port: int) -> bytes:
    """Pack a port as a field."""
    return port.to_bytes(2, "big") + b"\0\0"


def frontend_key(address: Address, protocol: Protocol, port: int) -> FrontendKey:
    """Return the key of a frontend."""
    return FrontendKey(address + _PROTOCOLS[protocol] + pack_port(port))


def is_frontend(key: bytes) -> TypeGuard[FrontendKey]:
    """Whether the key of an element in a verdict map can be a frontend's.

    Other programs may add what the kernel allows: another protocol, or the key b"" (nft's `*`).
    """
    return bool(key) and key[-8] in _NUMBERS


def frontend_address(key: FrontendKey) -> Address:
    """Return the address of a frontend."""
    return key[:-8]


def frontend_protocol(key: FrontendKey) -> Protocol:
    """Return the protocol of a frontend."""
    return _NUMBERS[key[-8]]


def frontend_socket(key: FrontendKey) -> PackedSocket:
    """Return the address and port of a frontend: its key without the protocol."""
    return PackedSocket(key[:-8] + key[-4:])


def frontend_of(socket: PackedSocket, protocol: Protocol) -> FrontendKey:
    """Return the frontend with this address, port and protocol."""
    return FrontendKey(socket[:-4] + _PROTOCOLS[protocol] + socket[-4:])


def format_frontend(key: FrontendKey) -> str:
    """Return for example `10.96.0.10:80/tcp`."""
    return f"{format_packed(frontend_socket(key))}/{frontend_protocol(key)}"


def pack_socket(address: Address, port: int) -> PackedSocket:
    """Pack an address and a port."""
    return PackedSocket(address + pack_port(port))


def join_socket(address: Address, port: bytes) -> PackedSocket:
    """Pack an address and a port that is already packed."""
    return PackedSocket(address + port)


def socket_address(socket: PackedSocket) -> Address:
    """Return the address of a socket."""
    return socket[:-4]


def socket_port(socket: PackedSocket) -> int:
    """Return the port of a socket."""
    return int.from_bytes(socket[-4:-2], "big")


def format_packed(socket: PackedSocket) -> str:
    """Return for example `10.0.0.1:80` or `[fd00::1]:80`."""
    return format_socket(socket_address(socket), socket_port(socket))


def slot_keys(frontend: PackedSocket, slots: Iterable[int]) -> list[SlotKey]:
    """Return the keys of these slots of a frontend."""
    return cast("list[SlotKey]", [frontend + slot.to_bytes(4, sys.byteorder) for slot in slots])


def slot_frontend(key: SlotKey) -> PackedSocket:
    """Return the address and port of the frontend that a slot belongs to."""
    return PackedSocket(key[:-4])


def slot_values(values: Iterable[Value | None]) -> tuple[PackedSocket | None, ...]:
    """Return the endpoint in each value of an endpoints map, None where a value is missing."""
    found = tuple(value if isinstance(value, bytes) else None for value in values)
    return cast("tuple[PackedSocket | None, ...]", found)


def affinity_key(client: Address, frontend: PackedSocket) -> AffinityKey:
    """Return the key of a client of a frontend, in the affinity map of the frontend's protocol."""
    return AffinityKey(client + frontend)


def split_affinity_key(key: AffinityKey) -> tuple[Address, PackedSocket]:
    """Return the client, and the frontend's address and port."""
    width = (len(key) - 4) // 2
    return key[:width], PackedSocket(key[width:])


def range_key(frontend: FrontendKey, first: Address, last: Address) -> RangeKey:
    """Return the key of a range of client addresses at a frontend: frontend . first, then frontend . last."""
    return RangeKey(frontend + first + frontend + last)


def range_frontend(key: RangeKey) -> FrontendKey:
    """Return the frontend that a range of clients belongs to."""
    half = len(key) // 2
    return FrontendKey(key[: (half + 8) // 2])
