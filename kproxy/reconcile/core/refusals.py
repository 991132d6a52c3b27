"""Describes what the kernel refused of a transaction, and finds the services to which it belongs.

Netlink provides the map and the key. Most elements belong to a frontend, and the comment of the frontend's
element in a verdict map names its service port.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from kproxy.kernel.netlink.core.elements import KernelRefusal
from kproxy.model import Family, NamespacedName, Protocol
from kproxy.nft.elements import Elements, Value, Verdict
from kproxy.nft.render import render_element
from kproxy.nft.ruleset import Skeleton
from kproxy.problems import RefusedElement, TransactionError
from kproxy.resolve.claims import Claims
from kproxy.table.compile import Delta, whole
from kproxy.table.layout import (
    AffinityKey,
    EndpointScope,
    FrontendKey,
    RangeKey,
    SetName,
    SlotKey,
    affinity_map,
    endpoints_map,
    frontend_address,
    frontend_of,
    frontend_protocol,
    frontend_socket,
    is_frontend,
    range_frontend,
    slot_frontend,
    split_affinity_key,
)
from kproxy.table.plan import owner_of

ENDPOINTS = frozenset(map(endpoints_map, Protocol))
ADDRESSES = (SetName.CLUSTER_IPS, SetName.LOAD_BALANCER_IPS)
"""Sets whose keys are the addresses of frontends."""
NAMED = 3
"""The maximum number of refusals in the text of an error. Its data contains all of them."""


def may_be_race(error: TransactionError) -> bool:
    """Whether another program may have caused the error, because it changed the table after it was read."""
    return error.errno in (errno.ENOENT, errno.EEXIST, errno.EBUSY)


def refused_elements(refusals: Iterable[KernelRefusal], *tables: Elements) -> tuple[RefusedElement, ...]:
    """Return the refused elements. `tables` contain the verdicts whose comments name the owners."""
    return tuple(
        RefusedElement(str(refusal.family), refusal.name, refusal.key, refusal.text, _owner(refusal, tables))
        for refusal in refusals
        if refusal.is_element
    )


def describe(skeleton: Skeleton, refusals: Sequence[KernelRefusal], *tables: Elements) -> str:
    """Return text such as `services { 10.96.0.10 . tcp . 80 } of default/web:http and 2 more`."""
    text = ", ".join(_describe(skeleton, refusal, tables) for refusal in refusals[:NAMED])
    return f"{text} and {len(refusals) - NAMED} more" if len(refusals) > NAMED else text


def _describe(skeleton: Skeleton, refusal: KernelRefusal, tables: Iterable[Elements]) -> str:
    if not refusal.is_element:
        return f"a rule in {refusal.name}"
    key, owner = _render_key(skeleton, refusal), _owner(refusal, tables)
    return refusal.name + (f" {{ {key} }}" if key else "") + (f" of {owner}" if owner else "")


def _render_key(skeleton: Skeleton, refusal: KernelRefusal) -> str:
    """Return the key as nft writes it; as hexadecimal digits if it is not a key of the set."""
    if not refusal.key:
        return ""
    try:
        return render_element(skeleton.set(refusal.name), skeleton.family, refusal.key, b"")
    except (KeyError, ValueError):
        return refusal.key.hex()


def _owner(refusal: KernelRefusal, tables: Iterable[Elements]) -> str:
    """Return `namespace/service:port` from the first table that contains the frontend; "" if none does."""
    for elements in tables if refusal.key else ():
        for scope in EndpointScope:
            verdicts = elements.get(scope.verdicts, {})
            verdict = verdicts.get(_frontend(refusal, verdicts))
            if isinstance(verdict, Verdict) and verdict.comment:
                return verdict.comment
    return ""


def _frontend(refusal: KernelRefusal, verdicts: Mapping[bytes, Value]) -> bytes:
    """Return the frontend to which an element belongs, or its key if the keys of the set are frontends."""
    name, key = refusal.name, refusal.key
    if name == SetName.SOURCE_RANGES:
        return range_frontend(RangeKey(key))
    if name in ADDRESSES:
        return _with_address(key, verdicts)
    for protocol in Protocol:
        if name == endpoints_map(protocol):
            return frontend_of(slot_frontend(SlotKey(key)), protocol)
        if name == affinity_map(protocol):
            return frontend_of(split_affinity_key(AffinityKey(key))[1], protocol)
    return key


def _with_address(address: bytes, verdicts: Iterable[bytes]) -> bytes:
    """Return a frontend with this address; b"" if there is none."""
    found = (FrontendKey(key) for key in verdicts if is_frontend(key) and frontend_address(key) == address)
    return next(found, FrontendKey(b""))


def owners(elements: Collection[RefusedElement], claims: Claims, family: Family) -> set[NamespacedName]:
    """Return the services to which refused elements belong. An element may belong to several."""
    locations = {_location(element) for element in elements}
    if not locations:
        return set()
    named, names = {owner_of(element.owner) for element in elements if element.owner}, claims.names()
    wholes = ((name, whole(claims.frontends(name), family)) for name in names)
    return {name for name, delta in wholes if not locations.isdisjoint(_locations(delta))} | (named & names)


def _location(element: RefusedElement) -> tuple[str, bytes]:
    """Return the set and the key of an element. The slots of a frontend have its socket as their key."""
    is_slot = element.set in ENDPOINTS
    return element.set, slot_frontend(SlotKey(element.key)) if is_slot else element.key


def _locations(delta: Delta) -> Iterator[tuple[str, bytes]]:
    """Return the elements of a service, in the form of `_location`."""
    for scope, key in delta.specs:
        yield scope.verdicts, key
        yield endpoints_map(frontend_protocol(key)), frontend_socket(key)
    yield from ((name, key) for name, members in delta.elements.items() for key in members)
