"""The status of the objects of the Gateway API: what kproxy makes of each, and why.

It is a function of the objects and of the frontends on this node, so a view computes it when it is asked for.
Types, reasons and the meaning of conditions are those of the Gateway API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kproxy.controlplane.gateways import is_ours, requested_addresses
from kproxy.gateway.core.attachment import (
    BY_PROXY,
    Attached,
    Attachments,
    FindService,
    Refusal,
    allowed_kinds,
    attach,
    conflict,
    http_owners,
    supported_kinds,
    unusable,
)
from kproxy.gateway.core.backends import certificate_of, resolve
from kproxy.gateway.core.l4 import PROTOCOLS, served_listeners
from kproxy.gatewayapi import CONTROLLER, Gateway, GatewayClass, GatewayObjects, Listener, ParentRef, Route
from kproxy.model import (
    Address,
    Frontend,
    NamespacedName,
    Protocol,
    address_or_none,
    format_address,
    format_socket,
    gateway_owner,
    owner_text,
)

FEATURES = (
    *("Gateway", "GatewayAddressEmpty", "GatewayPort8080", "GatewayStaticAddresses"),
    *("HTTPRoute", "HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode"),
    *(
        "HTTPRoute308RedirectStatusCode",
        "HTTPRouteBackendProtocolWebSocket",
        "HTTPRouteDestinationPortMatching",
    ),
    *("HTTPRouteHostRewrite", "HTTPRouteMethodMatching", "HTTPRouteNamedRouteRule", "HTTPRouteParentRefPort"),
    *("HTTPRoutePathRedirect", "HTTPRoutePathRewrite", "HTTPRoutePortRedirect"),
    *("HTTPRouteQueryParamMatching", "HTTPRouteRequestTimeout", "HTTPRouteResponseHeaderModification"),
    *("HTTPRouteSchemeRedirect", "ReferenceGrant", "TCPRoute", "UDPRoute"),
)
"""The names of what kproxy supports, in the Gateway API's words, sorted."""


WITHOUT_PROXY = Refusal("Pending", "only kproxy run --gateway serves HTTP")


class Condition(NamedTuple):
    """One condition of a status."""

    type: str
    status: bool
    reason: str
    message: str = ""


class ListenerStatus(NamedTuple):
    """The status of a listener."""

    name: str
    kinds: tuple[str, ...]
    """The kinds of routes that it serves."""
    routes: int
    """The number of routes that are attached to it."""
    conditions: tuple[Condition, ...]


class GatewayStatus(NamedTuple):
    """The status of a Gateway that kproxy serves."""

    addresses: tuple[Address, ...]
    conditions: tuple[Condition, ...]
    listeners: tuple[ListenerStatus, ...]


class ParentStatus(NamedTuple):
    """What a Gateway makes of a route."""

    parent: ParentRef
    conditions: tuple[Condition, ...]


class Statuses:
    """The status of each object that concerns kproxy. Others have none."""

    def __init__(
        self,
        objects: GatewayObjects,
        find: FindService,
        frontends: Iterable[Frontend],
        http: bool = True,
    ) -> None:
        """`find` finds the Services of Gateways, too; `frontends` are those on this node.

        `http`: HAProxy serves HTTP listeners.
        """
        self._objects = objects
        self._find = find
        self._http = http
        self._attachments = attach(objects)
        self._owners = {(f.address, f.protocol, f.port): f.owner.service for f in frontends}
        self._http_owners = http_owners(objects, find)

    @property
    def attachments(self) -> Attachments:
        """Which routes are attached to which listeners."""
        return self._attachments

    def of_class(self, found: GatewayClass) -> tuple[Condition, ...] | None:
        """Return the conditions of a GatewayClass; None if it is another controller's."""
        if found.controller != CONTROLLER:
            return None
        if found.parameters:
            message = f"kproxy has no parameters, but spec.parametersRef names {found.parameters}"
            return (Condition("Accepted", False, "InvalidParameters", message),)
        return (Condition("Accepted", True, "Accepted"),)

    def of_gateway(self, gateway: Gateway) -> GatewayStatus | None:
        """Return the status of a Gateway; None if it is another controller's."""
        if not is_ours(self._objects, gateway):
            return None
        service = self._find(gateway_owner(gateway.name))
        addresses = service.load_balancer_ips if service else ()
        listeners = tuple(self._of_listener(gateway, each, addresses) for each in gateway.listeners)
        conditions = tuple(_of_gateway(gateway, addresses, listeners))
        return GatewayStatus(addresses, conditions, listeners)

    def of_route(self, route: Route) -> tuple[ParentStatus, ...]:
        """Return what each Gateway that kproxy serves makes of a route."""
        attached = self._attachments.by_route.get((route.kind, route.name), ())
        references = self._references(route)
        return tuple(
            ParentStatus(each.parent, (_accepted(each), references, *_partly(route))) for each in attached
        )

    def unresolved(self, route: Route) -> Iterator[tuple[str, Refusal]]:
        """Yield the path of each backendRef of a route that leads nowhere, and why."""
        for number, rule in enumerate(route.rules):
            for index, ref in enumerate(rule.backends):
                found = resolve(self._objects, self._find, route, ref)
                if isinstance(found, Refusal):
                    yield f"spec.rules[{number}].backendRefs[{index}]", found

    def _references(self, route: Route) -> Condition:
        found = [refusal for _, refusal in self.unresolved(route)]
        if not found:
            return Condition("ResolvedRefs", True, "ResolvedRefs")
        return Condition("ResolvedRefs", False, found[0].reason, "; ".join(each.message for each in found))

    def _of_listener(
        self, gateway: Gateway, listener: Listener, addresses: Sequence[Address]
    ) -> ListenerStatus:
        routes = self._attachments.routes(gateway.name, listener.name)
        refusal = unusable(gateway, listener) or self._taken(gateway, listener, addresses)
        conflicting, certificates = conflict(gateway, listener), list(self._certificates(gateway, listener))
        unresolved = next(filter(None, [_kinds(listener), *certificates]), None)
        why = refusal or (unresolved if certificates and all(certificates) else None)
        waiting = None if self._http or listener.protocol not in BY_PROXY else WITHOUT_PROXY
        conditions = [
            _condition("Accepted", "Accepted", refusal),
            _condition("Programmed", "Programmed", Refusal("Invalid", why.message) if why else waiting),
            _condition("ResolvedRefs", "ResolvedRefs", unresolved),
            Condition("Conflicted", True, *conflicting)
            if conflicting
            else Condition("Conflicted", False, "NoConflicts"),
        ]
        return ListenerStatus(listener.name, supported_kinds(listener), len(routes), tuple(conditions))

    def _certificates(self, gateway: Gateway, listener: Listener) -> Iterator[Refusal | None]:
        """Yield for each certificate of a listener why it cannot be used; None if it can."""
        for ref in listener.certificates if listener.protocol == "HTTPS" else ():
            found = certificate_of(self._objects, gateway, ref)
            if isinstance(found, Refusal):
                yield found
            else:
                reason = self._objects.certificates.get(found, "is unknown")
                yield Refusal("InvalidCertificateRef", reason) if reason else None

    def _taken(self, gateway: Gateway, listener: Listener, addresses: Sequence[Address]) -> Refusal | None:
        """Return who has the address and port of a listener that has a route, if another owner has it."""
        served = (each for each, _ in served_listeners(gateway, self._attachments))
        if listener.protocol not in BY_PROXY and all(each is not listener for each in served):
            return None
        own, protocol = gateway_owner(gateway.name), PROTOCOLS.get(listener.protocol, Protocol.TCP)
        for address in addresses:
            owner = self._owners.get((address, protocol, listener.port), own)
            if owner == own and listener.protocol in BY_PROXY:
                owner = gateway_owner(self._http_owners.get((address, listener.port), gateway.name))
            if owner != own:
                return Refusal("PortUnavailable", _belongs(address, protocol, listener.port, owner))
        return None


def _belongs(address: Address, protocol: Protocol, port: int, owner: NamespacedName) -> str:
    return f"{format_socket(address, port)}/{protocol} belongs to {owner_text(owner)}"


def by_type(conditions: Iterable[Condition]) -> dict[str, bool]:
    """Return the status of conditions by type."""
    return {each.type: each.status for each in conditions}


def _condition(kind: str, reason: str, refusal: Refusal | None) -> Condition:
    return Condition(kind, False, *refusal) if refusal else Condition(kind, True, reason)


def _accepted(attached: Attached) -> Condition:
    return _condition("Accepted", "Accepted", attached.refusal)


def _partly(route: Route) -> Iterator[Condition]:
    """Yield the condition of a route that has rules with unsupported filters."""
    paths = [f"{path}: {message}" for path, message in unsupported(route)]
    if paths:
        yield Condition("PartiallyInvalid", True, "UnsupportedValue", "; ".join(paths))


def unsupported(route: Route) -> Iterator[tuple[str, str]]:
    """Yield the path of each filter of a route that is not supported, and the consequence."""
    for number, rule in enumerate(route.rules):
        for kind in rule.filters.unsupported:
            yield f"spec.rules[{number}].filters", f"{kind} is not supported: the status of requests is 500"
        for index, ref in enumerate(rule.backends):
            if ref.filters:
                path = f"spec.rules[{number}].backendRefs[{index}].filters"
                yield path, "are not supported: the status of requests is 500"


def _kinds(listener: Listener) -> Refusal | None:
    """Return which of the allowed kinds of routes a listener cannot serve."""
    wrong = [kind for kind, served in allowed_kinds(listener) if not served]
    if not wrong:
        return None
    named = ", ".join(f"{kind.kind}.{kind.group}" for kind in wrong)
    return Refusal("InvalidRouteKinds", f"protocol {listener.protocol} does not serve {named}")


def _of_gateway(
    gateway: Gateway, addresses: Sequence[Address], listeners: Sequence[ListenerStatus]
) -> Iterator[Condition]:
    invalid = [each for each in listeners if not by_type(each.conditions)["Accepted"]]
    parameters = "parametersRef" in gateway.infrastructure
    unsupported = [kind for kind, _ in gateway.addresses if kind != "IPAddress"]
    names = ", ".join(each.name for each in invalid)
    if parameters:
        message = "kproxy has no parameters, but spec.infrastructure.parametersRef names some"
        yield Condition("Accepted", False, "InvalidParameters", message)
    elif unsupported:
        message = f"addresses of type {unsupported[0]} are not supported, only IPAddress"
        yield Condition("Accepted", False, "UnsupportedAddress", message)
    elif invalid:
        some = len(invalid) < len(listeners)
        yield Condition("Accepted", some, "ListenersNotValid", f"listeners that are not valid: {names}")
    else:
        yield Condition("Accepted", True, "Accepted")
    yield _programmed(gateway, addresses, any(by_type(each.conditions)["Programmed"] for each in listeners))


def _programmed(gateway: Gateway, addresses: Sequence[Address], valid: bool) -> Condition:
    unusable = [text for _, text in requested_addresses(gateway) if address_or_none(text) not in addresses]
    if unusable:
        message = f"{', '.join(unusable)} is neither an address of --load-balancer-pool nor of this node"
        return Condition("Programmed", False, "AddressNotUsable", message)
    if not addresses:
        return Condition("Programmed", False, "AddressNotAssigned", "no address is assigned")
    if not valid:
        return Condition("Programmed", False, "Invalid", "no listener can be used")
    return Condition("Programmed", True, "Programmed", f"at {', '.join(map(format_address, addresses))}")
