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
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from kproxy.model import NamespacedName, Protocol
from kproxy.nft.elements import Elements, frontend_protocol, slot_prefix
from kproxy.table.layout import EndpointScope, FrontendSide, FrontendSpec, endpoints_map, held_slots
from kproxy.table.plan import Plan, owner_of, protect_nothing

Handle = TypeVar("Handle")

UDP = bytes([Protocol.UDP.number, 0, 0, 0])


class FlowRule(NamedTuple):
    """Which entries of one frontend are stale, by what they were translated to."""

    endpoints: frozenset[bytes]
    """Packed address . port; the frontend's own for entries that were not translated."""
    others: bool
    """False: entries to `endpoints` are stale; True: entries to any other are."""

    def is_stale(self, endpoint: bytes) -> bool:
        """Whether an entry that leads there must go."""
        return (endpoint in self.endpoints) is not self.others


def flow_rules(
    applied: Elements,
    specs: Mapping[FrontendSide, FrontendSpec | None],
    todo: Plan,
    protected: Callable[[NamespacedName], bool] = protect_nothing,
) -> dict[bytes, FlowRule]:
    """The rules for the UDP frontends of `specs` and for those that go, by packed address . port.

    `applied` is what the table holds when `todo`, the plan for these targets, is done. A frontend
    whose removal was interrupted is known by the slots that it left. Of a service for which `protected`
    says so (part of its input could not be read), no endpoint counts as gone.
    """
    rules = {
        prefix: FlowRule(frozenset(endpoints), others=False)
        for prefix, endpoints in _swept(todo).items()
        if not _is_shown(applied, prefix)
    }
    for change in todo.changes:
        prefix = slot_prefix(change.side.key)
        if change.after is None and _is_udp(change.side) and not _is_shown(applied, prefix):
            rules[prefix] = FlowRule(frozenset([prefix]), others=True)
    for key, scopes in _shown(specs).items():
        prefix = slot_prefix(key)
        held = {
            endpoint
            for scope in EndpointScope
            for endpoint in held_slots(applied, FrontendSide(scope, key), Protocol.UDP)
            if endpoint is not None
        }
        if any(protected(owner_of(spec.comment)) for spec in scopes):
            rules[prefix] = FlowRule(frozenset([prefix] if held else []), others=False)
            continue
        serving = held.union(*(spec.serving for spec in scopes))
        rules[prefix] = FlowRule(frozenset(serving if held else serving | {prefix}), others=True)
    return rules


def stale(
    entries: Iterable[tuple[bytes, bytes, Handle]], rules: Mapping[bytes, FlowRule]
) -> Iterator[Handle]:
    """What `entries` (where to, translated to what, what to call it) have that is stale."""
    find = rules.get
    for frontend, endpoint, handle in entries:
        rule = find(frontend)
        if rule is not None and rule.is_stale(endpoint):
            yield handle


def _is_udp(side: FrontendSide) -> bool:
    return frontend_protocol(side.key) is Protocol.UDP


def _is_shown(applied: Elements, prefix: bytes) -> bool:
    key = prefix[:-4] + UDP + prefix[-4:]
    return any(key in applied[scope.verdicts] for scope in EndpointScope)


def _shown(specs: Mapping[FrontendSide, FrontendSpec | None]) -> dict[bytes, list[FrontendSpec]]:
    """The targets of each UDP frontend that does not go."""
    found: dict[bytes, list[FrontendSpec]] = defaultdict(list)
    for side, spec in specs.items():
        if spec is not None and _is_udp(side):
            found[side.key].append(spec)
    return found


def _swept(todo: Plan) -> dict[bytes, set[bytes]]:
    """The endpoints in slots that nothing points to, by frontend."""
    found: dict[bytes, set[bytes]] = defaultdict(set)
    for key, endpoint in todo.sweep.remove.get(endpoints_map(Protocol.UDP), {}).items():
        if key and isinstance(endpoint, bytes):
            found[key[:-4]].add(endpoint)
    return found
