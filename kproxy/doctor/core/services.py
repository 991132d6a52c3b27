"""Checks of Services, their pods and their endpoints. They look at the input only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kproxy.controlplane.slices import pods_without_ports
from kproxy.doctor.core.asked import Asked
from kproxy.doctor.core.cause import Sighting
from kproxy.doctor.core.objects import Objects
from kproxy.model import EndpointSlice, Frontend, NamespacedName, Pod, Service, format_socket, owner_text
from kproxy.probes.core.readiness import not_ready_reason
from kproxy.problems import enumeration, most_similar
from kproxy.reconcile.core.report import QUARANTINED, plural
from kproxy.resolve.claims import FIELDS, lost_message, places, socket_of
from kproxy.resolve.frontends import EXTERNAL, service_frontends


def no_such_service(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """The command names a Service that does not exist."""
    name = asked.service
    if name is None or objects.knows(name):
        return
    known = [*objects.inventory.services, *objects.inventory.left_out]
    elsewhere = sorted(other.namespace for other in known if other.name == name.name)
    evidence = [f"namespace {each} has a Service {name.name}" for each in elsewhere]
    similar = most_similar(name.name, {other.name for other in known if other.namespace == name.namespace})
    if similar:
        evidence.append(f"a similar name in namespace {name.namespace}: {similar}")
    if not elsewhere and not similar:
        evidence.append(f"kproxy knows {plural(len(known), 'Service')}")
    yield Sighting(_subject(name), f"there is no Service {name}", tuple(evidence))


def not_an_address(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """The command names an address that no Service has."""
    if asked.service is None:
        evidence = f"kproxy serves {plural(len(objects.inventory.services), 'Service')}"
        yield Sighting(asked.text, "no Service has this address on this node", (evidence,))


def left_out(objects: Objects) -> Iterator[Sighting]:
    """A Service was refused, for example because its ClusterIP is taken."""
    for name in sorted(objects.inventory.left_out):
        if objects.concerns(name):
            why = objects.context.problems("Service", name)
            yield Sighting(_subject(name), "kproxy does not serve this Service", tuple(why))


def held(objects: Objects) -> Iterator[Sighting]:
    """Something that can no longer be read is still in use."""
    for name, reason in sorted(objects.inventory.held.items()):
        if objects.concerns(name):
            yield Sighting(_subject(name), "an earlier state of this Service is in use", (reason,))


def no_frontends(objects: Objects, asked: Asked) -> Iterator[Sighting]:
    """The Service that the command names has no ClusterIP."""
    for service in (each for each in objects.services if each.name == asked.service):
        if service.external_name:
            fact = f"type ExternalName: a name in DNS for {service.external_name}"
        elif service.headless:
            fact = "clusterIP: None (headless): clients connect to its endpoints themselves"
        elif service.proxied_elsewhere:
            fact = "the label service.kubernetes.io/service-proxy-name: another proxy serves it"
        else:
            continue
        yield Sighting(_subject(service.name), "kproxy serves no address of this Service", (fact,))


def selects_nothing(objects: Objects) -> Iterator[Sighting]:
    """No pod has the labels of the selector."""
    for service in objects.served:
        if not objects.uses_selector(service) or objects.context.selected(service):
            continue
        pods = [pod for pod in objects.inventory.pods if pod.name.namespace == service.name.namespace]
        evidence = [f"spec.selector: {_labels(service.selector)}", *_nearest(service, pods)]
        evidence += objects.snapshot.notes  # workloads, for which kproxy starts no pods
        if ended := list(_ended(objects, service)):
            evidence = [evidence[0], f"ended: {enumeration(ended)}"]
        which = "only pods that have ended match" if ended else "no pod matches"
        what = f"{which} the selector in namespace {service.name.namespace}"
        yield Sighting(_subject(service.name), what, tuple(evidence))


def _ended(objects: Objects, service: Service) -> Iterator[str]:
    """Return the pods that match the selector and have ended."""
    for pod in objects.inventory.ended_pods:
        if pod.name.namespace == service.name.namespace and service.selector.items() <= pod.labels.items():
            yield f"{pod.name.name} ({pod.phase})"


def _nearest(service: Service, pods: list[Pod]) -> Iterator[str]:
    """Return what the pods have instead."""
    if not pods:
        yield f"no pod is in namespace {service.name.namespace}"
        return
    for key in sorted(service.selector):
        values = sorted({pod.labels[key] for pod in pods if key in pod.labels})
        have = f"{key}={enumeration(values)}" if values else f"no label {key}"
        yield f"the pods of this namespace have {have}"


def no_endpoints(objects: Objects) -> Iterator[Sighting]:
    """The Service has no endpoint in any state, and no selector that kproxy uses."""
    for service in objects.served:
        if objects.uses_selector(service) or any(each.endpoints for each in objects.slices(service)):
            continue
        count = len(objects.slices(service))
        why = (
            f"no endpoint in {plural(count, 'EndpointSlice')}" if count else "no EndpointSlice belongs to it"
        )
        selector = f"spec.selector: {_labels(service.selector)}" if service.selector else "it has no selector"
        yield Sighting(_subject(service.name), "this Service has no endpoint", (why, selector))


def port_name_missing(objects: Objects) -> Iterator[Sighting]:
    """Pods lack the named target port."""
    for service in objects.served:
        pods = objects.selected(service)
        lacking = pods_without_ports(service, pods)
        for port in service.ports:
            if without := lacking.get(port.name):
                what = f"{len(without)} of {len(pods)} pods have no port named {port.target_port}"
                names = enumeration([pod.name.name for pod in without])
                have = sorted({each.name for pod in without for each in pod.ports}) or ["none"]
                evidence = f"without it: Pod {names}", f"their port names: {enumeration(have)}"
                yield Sighting(_subject(service.name), what, evidence)


def port_not_in_slices(objects: Objects) -> Iterator[Sighting]:
    """The EndpointSlices of a Service have no port of its port's name."""
    for service in objects.served:
        slices = [each for each in objects.slices(service) if each.endpoints]
        if objects.uses_selector(service) or not slices:
            continue
        named = {port.name for each in slices for port in each.ports}
        for port in service.ports:
            if port.name not in named:
                have = enumeration([name or "an unnamed port" for name in sorted(named)] or ["no port"])
                what = (
                    f"its endpoints have no port named {port.name!r}"
                    if port.name
                    else ("its endpoints have no unnamed port")
                )
                yield Sighting(_subject(service.name), what, (f"the EndpointSlices have {have}",))


def not_ready(objects: Objects) -> Iterator[Sighting]:
    """Pods are not ready."""
    for service in objects.served:
        if service.publish_not_ready:
            continue
        if objects.uses_selector(service):
            yield from _unready_pods(objects, service)
        else:
            yield from _unready_endpoints(service, objects.slices(service))


def _unready_pods(objects: Objects, service: Service) -> Iterator[Sighting]:
    pods = [pod for pod in objects.selected(service) if not pod.terminating]
    unready = [pod for pod in pods if not pod.ready]
    if unready:
        what = f"{len(unready)} of {len(pods)} pods are not ready, and get no connections"
        evidence = tuple(f"Pod {pod.name.name}: {_why_unready(objects, pod)}" for pod in unready[:NAMED])
        yield Sighting(_subject(service.name), what, evidence)


NAMED = 5
"""The maximum number of pods in the evidence of one finding."""


def _why_unready(objects: Objects, pod: Pod) -> str:
    found = (objects.inventory.readiness or {}).get(pod.name)
    return not_ready_reason(found) if found else "condition Ready is not True"


def _unready_endpoints(service: Service, slices: Iterable[EndpointSlice]) -> Iterator[Sighting]:
    every = {each.address: each for one in slices for each in one.endpoints if not each.terminating}
    unready = [address for address, each in sorted(every.items()) if not each.ready]
    if unready:
        what = f"{len(unready)} of {len(every)} endpoints are not ready, and get no connections"
        texts = [
            f"endpoint {each}" for each in (_endpoint(service, a, every[a].pod) for a in unready[:NAMED])
        ]
        yield Sighting(_subject(service.name), what, tuple(texts))


def _endpoint(service: Service, address: bytes, pod: str) -> str:
    text = format_socket(address, 0).rpartition(":")[0]
    return f"{text} (Pod {pod})" if pod else text


def no_pod_address(objects: Objects) -> Iterator[Sighting]:
    """Pods have no address, so they are not endpoints."""
    for service in objects.served:
        without = [pod.name.name for pod in objects.selected(service) if not pod.addresses]
        if without:
            what = "pods without an address are not endpoints"
            evidence = f"no status.podIPs: Pod {enumeration(without)}"
            yield Sighting(_subject(service.name), what, (evidence,))


def taken_frontend(objects: Objects) -> Iterator[Sighting]:
    """Another Service has an address and port of the Service."""
    for service in objects.served:
        for frontend, owner in _lost(objects, service):
            what = f"{owner_text(owner)} has {frontend}, which this Service requests, too"
            yield Sighting(_subject(service.name), what, (f"requested as {frontend.kind}",))


def _lost(objects: Objects, service: Service) -> Iterator[tuple[Frontend, NamespacedName]]:
    """Return the frontends that other Services own, and their owners."""
    if service.external_ips or service.load_balancer_ips:
        for frontend in service_frontends(service, objects.slices(service), objects.snapshot.node):
            owner = objects.owners.get(socket_of(frontend), service.name)
            if owner != service.name:
                yield frontend, owner


def takes_an_address(objects: Objects) -> Iterator[Sighting]:
    """A Service has an external address of this node or of another host that it needs."""
    fields = {FIELDS[kind] for kind in EXTERNAL}
    for warning in objects.snapshot.warnings:
        if warning.field in fields and any(warning.object == _subject(each.name) for each in objects.served):
            yield Sighting(warning.object, "it is served on an address of something else", (warning.message,))


def partly_refused(objects: Objects) -> Iterator[Sighting]:
    """Something of a Service could not be used, but it is served."""
    for service in objects.services:
        found = objects.problems.get(_subject(service.name), [])
        known = {QUARANTINED, *(lost_message(*each) for each in _lost(objects, service))} if found else set()
        others = tuple(str(p._replace(object="")) for p in found if p.message not in known)
        if others:
            yield Sighting(_subject(service.name), "part of this Service cannot be used", others)


def nothing_local(objects: Objects) -> Iterator[Sighting]:
    """The traffic policy is Local, and this node has no endpoint."""
    for service in objects.served:
        frontends = objects.context.frontends(service.name)
        inside = service.internal_local and any(
            f.backends.elsewhere and not f.backends.endpoints for f in frontends
        )
        outside = any(
            f.from_outside and f.from_outside.elsewhere and not f.from_outside.endpoints for f in frontends
        )
        for policy, drops, which in (
            ("internalTrafficPolicy", inside, "to the ClusterIP"),
            ("externalTrafficPolicy", outside, "from outside"),
        ):
            if drops:
                what = f"{policy} is Local, and no endpoint is on this node: packets {which} are dropped"
                where = places(objects.slices(service))
                evidence = f"this node is {objects.snapshot.node.name}", where
                yield Sighting(_subject(service.name), what, evidence, sure=policy.startswith("internal"))


def pending_load_balancer(objects: Objects) -> Iterator[Sighting]:
    """A Service of type LoadBalancer has no address for clients from outside."""
    for service in objects.served:
        if service.type == "LoadBalancer" and not service.ingress and not service.load_balancer_ips:
            reasons = objects.context.problems("Service", service.name) or ["status.loadBalancer is empty"]
            yield Sighting(_subject(service.name), "it has no load-balancer address", tuple(reasons))


def _labels(selector: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))


def _subject(name: NamespacedName) -> str:
    return f"Service {name}"
