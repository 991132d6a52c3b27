"""Services -> environment variables of a pod, as a kubelet gives them to its containers.

A container finds in its environment every service that its namespace has when it starts,
and `kubernetes` of namespace `default`, which the pod's own namespace may have another one
of. A service without ClusterIP has no variables. Each of the others has them in two forms:

    NAME_SERVICE_HOST, NAME_SERVICE_PORT, NAME_SERVICE_PORT_PORTNAME         Kubernetes' own
    NAME_PORT, NAME_PORT_80_TCP, NAME_PORT_80_TCP_{ADDR,PORT,PROTO}          as Docker's links had

Only the primary ClusterIP occurs. Names are upper case, with `_` for `-`. Two services may mean
the same variable, as `web` and `web-service` do by WEB_SERVICE_PORT: a kubelet lets chance decide,
here it is that of the service whose name is last in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kproxy.model import NamespacedName, Pod, Service, format_address, format_socket

API_SERVER = NamespacedName("default", "kubernetes")
"""The service that every pod is told of."""


def visible_services(services: Iterable[Service], pod: Pod) -> list[Service]:
    """The services that the pod's environment names, in order of their names.

    With `enableServiceLinks: false` that is only the API server's.
    """
    seen: dict[str, Service] = {}
    for service in services:
        own = service.name.namespace == pod.name.namespace and pod.service_links
        if not service.cluster_ips or not (own or service.name == API_SERVER):
            continue
        if own or service.name.name not in seen:
            seen[service.name.name] = service
    return [seen[name] for name in sorted(seen)]


def variable_name(text: str) -> str:
    """The name of a service or of a port, as it occurs in names of variables.

    Kubernetes' names of services have no dots; those that kproxy takes may.
    """
    return text.upper().replace("-", "_").replace(".", "_")


def _variables(service: Service) -> Iterator[tuple[str, str]]:
    """Name and value; `service` has a ClusterIP and thus a port."""
    name, address = variable_name(service.name.name), service.cluster_ips[0]
    first, host = service.ports[0], format_address(address)
    yield f"{name}_SERVICE_HOST", host
    yield f"{name}_SERVICE_PORT", str(first.port)
    yield f"{name}_PORT", f"{first.protocol}://{format_socket(address, first.port)}"
    for port in service.ports:
        if port.name:
            yield f"{name}_SERVICE_PORT_{variable_name(port.name)}", str(port.port)
        link = f"{name}_PORT_{port.port}_{port.protocol.upper()}"
        yield link, f"{port.protocol}://{format_socket(address, port.port)}"
        yield f"{link}_ADDR", host
        yield f"{link}_PORT", str(port.port)
        yield f"{link}_PROTO", str(port.protocol)


def environment(services: Iterable[Service], pod: Pod) -> dict[str, str]:
    """The variables of a pod: by service, and of one service by name.

    `services` have been given their ClusterIPs; headless ones and ExternalNames have none.
    """
    return {
        name: value
        for service in visible_services(services, pod)
        for name, value in sorted(_variables(service))
    }
