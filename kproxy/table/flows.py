"""Rules that decide which conntrack entries of UDP flows are stale and must be deleted.

The kernel translates the first packet of a connection; later packets follow its conntrack entry. A TCP
connection to a dead pod ends by itself. But the entry of a UDP flow stays as long as the client keeps
sending, so its packets go to a dead pod, or, if the flow began when there was no endpoint, nowhere.
Therefore the entries of a frontend that lead to endpoints that no longer serve are stale. Untranslated
entries are stale as soon as the frontend has an endpoint. An endpoint that serves but gets no new
connections (it is terminating, or the topology hints exclude it) keeps its flows. Entries of other
protocols and of addresses that are not a frontend's are never stale.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from msgspec import Struct

from kproxy.model import Protects, Protocol, protect_nothing
from kproxy.nft.elements import Elements
from kproxy.table.layout import (
    EndpointScope,
    FrontendKey,
    FrontendSide,
    FrontendSpec,
    PackedSocket,
    SlotKey,
    endpoints_map,
    frontend_of,
    frontend_protocol,
    frontend_socket,
    is_frontend,
    slot_endpoints,
    slot_frontend,
)
from kproxy.table.plan import Plan, owner_of

Handle = TypeVar("Handle")


class FlowRule(Struct, frozen=True):
    """Decides which entries of one frontend are stale, by the endpoint that they lead to."""

    endpoints: frozenset[PackedSocket]
    """The frontend's own address and port stands for untranslated entries."""
    keep_listed: bool
    """True: all entries except those to `endpoints` are stale. False: entries to `endpoints` are stale."""

    def is_stale(self, endpoint: PackedSocket) -> bool:
        """Whether an entry that leads to `endpoint` is stale."""
        return (endpoint in self.endpoints) is not self.keep_listed


def flow_rules(
    applied: Elements,
    specs: Mapping[FrontendSide, FrontendSpec | None],
    todo: Plan,
    protected: Protects = protect_nothing,
) -> dict[PackedSocket, FlowRule]:
    """Return the rules for the UDP frontends of `specs` and for removed ones, by address and port.

    `applied` contains the elements after `todo`, the plan for `specs`, was committed. A frontend whose
    removal was interrupted is recognized by its leftover slots. The endpoints of a protected service
    (part of its input cannot be read) are never stale.
    """
    rules = {
        socket: FlowRule(frozenset(endpoints), keep_listed=False)
        for socket, endpoints in _swept_endpoints(todo).items()
        if not _is_programmed(applied, socket)
    }
    for change in todo.changes:
        socket = frontend_socket(change.side.key)
        if change.after is None and _is_udp(change.side) and not _is_programmed(applied, socket):
            rules[socket] = FlowRule(frozenset([socket]), keep_listed=True)
    for key, frontend_specs in _udp_specs(specs).items():
        socket = frontend_socket(key)
        programmed = {
            endpoint
            for scope in EndpointScope
            for endpoint in slot_endpoints(applied, FrontendSide(scope, key), Protocol.UDP)
            if endpoint is not None
        }
        if any(protected(owner_of(spec.comment)) for spec in frontend_specs):
            rules[socket] = FlowRule(frozenset([socket] if programmed else []), keep_listed=False)
            continue
        serving = programmed.union(*(spec.serving for spec in frontend_specs))
        rules[socket] = FlowRule(frozenset(serving if programmed else serving | {socket}), keep_listed=True)
    return rules


def may_wait(rules: Mapping[PackedSocket, FlowRule], todo: Plan) -> bool:
    """Whether the flows may be ended after the sweep of `todo`: no UDP frontend is removed.

    Otherwise its slots are the only trace of it, if kproxy is killed before its flows are ended.
    """
    removed = any(change.after is None and _is_udp(change.side) for change in todo.changes)
    return not removed and all(rule.keep_listed for rule in rules.values())


def put_back(elements: Elements) -> set[PackedSocket]:
    """Return address and port of the TCP frontends whose verdicts are among these elements."""
    return _tcp_sockets(key for scope in EndpointScope for key in elements.get(scope.verdicts, ()))


def new_frontends(todo: Plan) -> set[PackedSocket]:
    """Return address and port of the TCP frontends that a plan adds to the table."""
    return _tcp_sockets(change.side.key for change in todo.changes if change.before is None)


def _tcp_sockets(keys: Iterable[bytes]) -> set[PackedSocket]:
    frontends = (key for key in keys if is_frontend(key))
    return {frontend_socket(key) for key in frontends if frontend_protocol(key) is Protocol.TCP}


def stale_entries(
    entries: Iterable[tuple[PackedSocket, PackedSocket, Handle]], rules: Mapping[PackedSocket, FlowRule]
) -> Iterator[Handle]:
    """Return the handles of the stale entries. An entry is: frontend, endpoint, handle."""
    find = rules.get
    for frontend, endpoint, handle in entries:
        rule = find(frontend)
        if rule is not None and rule.is_stale(endpoint):
            yield handle


def _is_udp(side: FrontendSide) -> bool:
    return frontend_protocol(side.key) is Protocol.UDP


def _is_programmed(applied: Elements, socket: PackedSocket) -> bool:
    key = frontend_of(socket, Protocol.UDP)
    return any(key in applied[scope.verdicts] for scope in EndpointScope)


def _udp_specs(specs: Mapping[FrontendSide, FrontendSpec | None]) -> dict[FrontendKey, list[FrontendSpec]]:
    """Return the specs of each UDP frontend that is not removed."""
    found: dict[FrontendKey, list[FrontendSpec]] = defaultdict(list)
    for side, spec in specs.items():
        if spec is not None and _is_udp(side):
            found[side.key].append(spec)
    return found


def _swept_endpoints(todo: Plan) -> dict[PackedSocket, set[PackedSocket]]:
    """Return the endpoints in the slots that the sweep removes, by frontend."""
    found: dict[PackedSocket, set[PackedSocket]] = defaultdict(set)
    for key, endpoint in todo.sweep.remove.get(endpoints_map(Protocol.UDP), {}).items():
        if key and isinstance(endpoint, bytes):
            found[slot_frontend(SlotKey(key))].add(PackedSocket(endpoint))
    return found
