"""Which UDP flows that exist may not go on: the rules that entries of the connection table are held against.

The kernel decides where a connection goes by its first packet; later ones follow its entry. TCP
ends by itself, but a UDP client that never pauses would be led to a dead pod for ever, or, if it
began before there was an endpoint, nowhere. So a frontend's entries to endpoints that do not serve
any more are stale, and once it has an endpoint, so are those that were never translated. One that
serves, though it is not used for new connections (it is terminating, or hints name others), keeps
the flows that it has. Nothing but UDP is looked at, and no address that is not a frontend's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from kproxy.model import Protects, Protocol, protect_nothing
from kproxy.nft.elements import Elements
from kproxy.table.keys import (
    FrontendKey,
    PackedSocket,
    SlotKey,
    frontend_of,
    frontend_protocol,
    frontend_socket,
    slot_frontend,
)
from kproxy.table.layout import EndpointScope, FrontendSide, FrontendSpec, held_slots
from kproxy.table.names import endpoints_map
from kproxy.table.plan import Plan, owner_of

Handle = TypeVar("Handle")


class FlowRule(NamedTuple):
    """Which entries of one frontend are stale, by what they were translated to."""

    endpoints: frozenset[PackedSocket]
    """The frontend's own address and port stands for entries that were not translated."""
    others: bool
    """False: entries to `endpoints` are stale; True: entries to any other are."""

    def is_stale(self, endpoint: PackedSocket) -> bool:
        """Whether an entry that leads there must go."""
        return (endpoint in self.endpoints) is not self.others


def flow_rules(
    applied: Elements,
    specs: Mapping[FrontendSide, FrontendSpec | None],
    todo: Plan,
    protected: Protects = protect_nothing,
) -> dict[PackedSocket, FlowRule]:
    """The rules for the UDP frontends of `specs` and for those that go, by address and port.

    `applied` is what the table holds when `todo`, the plan for these targets, is done. A frontend
    whose removal was interrupted is known by the slots that it left. Of a service for which `protected`
    says so (part of its input could not be read), no endpoint counts as gone.
    """
    rules = {
        own: FlowRule(frozenset(endpoints), others=False)
        for own, endpoints in _swept(todo).items()
        if not _is_shown(applied, own)
    }
    for change in todo.changes:
        own = frontend_socket(change.side.key)
        if change.after is None and _is_udp(change.side) and not _is_shown(applied, own):
            rules[own] = FlowRule(frozenset([own]), others=True)
    for key, scopes in _shown(specs).items():
        own = frontend_socket(key)
        held = {
            endpoint
            for scope in EndpointScope
            for endpoint in held_slots(applied, FrontendSide(scope, key), Protocol.UDP)
            if endpoint is not None
        }
        if any(protected(owner_of(spec.comment)) for spec in scopes):
            rules[own] = FlowRule(frozenset([own] if held else []), others=False)
            continue
        serving = held.union(*(spec.serving for spec in scopes))
        rules[own] = FlowRule(frozenset(serving if held else serving | {own}), others=True)
    return rules


def stale(
    entries: Iterable[tuple[PackedSocket, PackedSocket, Handle]], rules: Mapping[PackedSocket, FlowRule]
) -> Iterator[Handle]:
    """What `entries` (where to, translated to what, what to call it) have that is stale."""
    find = rules.get
    for frontend, endpoint, handle in entries:
        rule = find(frontend)
        if rule is not None and rule.is_stale(endpoint):
            yield handle


def _is_udp(side: FrontendSide) -> bool:
    return frontend_protocol(side.key) is Protocol.UDP


def _is_shown(applied: Elements, socket: PackedSocket) -> bool:
    key = frontend_of(socket, Protocol.UDP)
    return any(key in applied[scope.verdicts] for scope in EndpointScope)


def _shown(specs: Mapping[FrontendSide, FrontendSpec | None]) -> dict[FrontendKey, list[FrontendSpec]]:
    """The targets of each UDP frontend that does not go."""
    found: dict[FrontendKey, list[FrontendSpec]] = defaultdict(list)
    for side, spec in specs.items():
        if spec is not None and _is_udp(side):
            found[side.key].append(spec)
    return found


def _swept(todo: Plan) -> dict[PackedSocket, set[PackedSocket]]:
    """The endpoints in slots that nothing points to, by frontend."""
    found: dict[PackedSocket, set[PackedSocket]] = defaultdict(set)
    for key, endpoint in todo.sweep.remove.get(endpoints_map(Protocol.UDP), {}).items():
        if key and isinstance(endpoint, bytes):
            found[slot_frontend(SlotKey(key))].add(PackedSocket(endpoint))
    return found
