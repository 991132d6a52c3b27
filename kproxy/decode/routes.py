"""TCPRoute and UDPRoute -> gatewayapi.py, with the checks of the Gateway API's CRDs."""

from __future__ import annotations

from collections.abc import Iterator

from kproxy.decode import gatewaywire as wire
from kproxy.decode.fields import FieldError, Notes, port_number
from kproxy.decode.gateways import check_length, common, namespace_name, required, section_name
from kproxy.gatewayapi import GROUP, BackendRef, ParentRef, Route, RouteRule
from kproxy.model import NamespacedName

PARENTS = 32
BACKENDS = 16
MAX_WEIGHT = 1_000_000


def tcp_route(source: str, obj: wire.L4Route, notes: Notes) -> list[Route]:
    """Decode a TCPRoute."""
    return [_l4_route("TCPRoute", source, obj, notes)]


def udp_route(source: str, obj: wire.L4Route, notes: Notes) -> list[Route]:
    """Decode a UDPRoute."""
    return [_l4_route("UDPRoute", source, obj, notes)]


def _l4_route(kind: str, source: str, obj: wire.L4Route, notes: Notes) -> Route:
    fields, rules = common(source, obj.metadata, obj.spec, notes), obj.spec.rules
    if not rules:
        raise FieldError("spec.rules", "is empty: must have one rule")
    if len(rules) > 1:  # v1alpha2 allowed it
        notes.warn("spec.rules[1]", "only the first rule is used: rules of this kind have no matches")
    namespace = fields["name"].namespace
    references = rules[0].backend_refs or []
    check_length("spec.rules[0].backendRefs", references, BACKENDS, least=1)
    backends = tuple(
        backend(f"spec.rules[0].backendRefs[{i}]", reference, namespace)
        for i, reference in enumerate(references)
    )
    name = section_name("spec.rules[0].name", rules[0].name) if rules[0].name else ""
    rule = RouteRule(backends, name)
    return Route(**fields, kind=kind, parents=parents(obj.spec.parent_refs or [], namespace), rules=(rule,))


def parents(entries: list[wire.ParentReference], namespace: str) -> tuple[ParentRef, ...]:
    """Decode spec.parentRefs of an object in `namespace`."""
    check_length("spec.parentRefs", entries, PARENTS)
    found = [_parent(f"spec.parentRefs[{i}]", entry, namespace) for i, entry in enumerate(entries)]
    for path, message in _repeated(found):
        raise FieldError(path, message)
    return tuple(found)


def _parent(path: str, entry: wire.ParentReference, namespace: str) -> ParentRef:
    where = entry.namespace
    return ParentRef(
        NamespacedName(
            namespace_name(f"{path}.namespace", where) if where else namespace,
            required(f"{path}.name", entry.name),
        ),
        GROUP if entry.group is None else entry.group,
        entry.kind or "Gateway",
        section_name(f"{path}.sectionName", entry.section_name) if entry.section_name else "",
        port_number(f"{path}.port", entry.port) if entry.port is not None else 0,
        explicit=bool(where),
    )


def _repeated(found: list[ParentRef]) -> Iterator[tuple[str, str]]:
    """Yield path and message of references to one parent that do not differ in listener or port."""
    for index, one in enumerate(found):
        for other in found[:index]:
            if (one.group, one.kind, one.name) != (other.group, other.kind, other.name):
                continue
            if (one.section, one.port) == (other.section, other.port):
                yield f"spec.parentRefs[{index}]", f"refers to {one.kind} {one.name} like another entry"
            elif not (one.section or one.port) or not (other.section or other.port):
                message = f"sectionName or port is required: two entries refer to {one.kind} {one.name}"
                yield f"spec.parentRefs[{index}]", message


def backend(path: str, entry: wire.BackendReference, namespace: str) -> BackendRef:
    """Decode a backendRef of an object in `namespace`."""
    weight = 1 if entry.weight is None else entry.weight
    if not 0 <= weight <= MAX_WEIGHT:
        raise FieldError(f"{path}.weight", f"{weight} is not a weight (0-{MAX_WEIGHT})")
    reference = BackendRef(
        NamespacedName(
            namespace_name(f"{path}.namespace", entry.namespace) if entry.namespace else namespace,
            required(f"{path}.name", entry.name),
        ),
        port_number(f"{path}.port", entry.port) if entry.port is not None else 0,
        weight,
        entry.group or "",
        entry.kind or "Service",
    )
    if reference.is_service and not reference.port:
        raise FieldError(f"{path}.port", "is missing: a Service requires it")
    return reference
