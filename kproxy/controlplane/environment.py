"""Services -> environment variables of a pod, as a kubelet sets them for its containers.

The environment of a container contains the Services that exist in its namespace when it starts,
and `default/kubernetes`, unless the namespace has a Service of this name. A Service without
ClusterIP has no variables. Each of the others has two sets of variables:

    NAME_SERVICE_HOST, NAME_SERVICE_PORT, NAME_SERVICE_PORT_PORTNAME         defined by Kubernetes
    NAME_PORT, NAME_PORT_80_TCP, NAME_PORT_80_TCP_{ADDR,PORT,PROTO}          compatible with Docker links

They contain the primary ClusterIP only. Names are upper case, with `_` for `-`. Two Services may
set the same variable: `web` and `web-service` both set WEB_SERVICE_PORT. In a kubelet the result
is random. Here the Service whose name is last in order sets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kproxy.model import API_SERVER, Pod, Service, format_address, format_socket


def visible_services(services: Iterable[Service], pod: Pod) -> list[Service]:
    """Return the Services that the pod's environment contains, in order of their names.

    With `enableServiceLinks: false` this is only the API server's Service.
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
    """Convert the name of a Service or port to its form in variable names."""
    return text.upper().replace("-", "_").replace(".", "_")


def _variables(service: Service) -> Iterator[tuple[str, str]]:
    """Yield names and values. `service` has a ClusterIP, and so at least one port."""
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
    """Return the variables of a pod, sorted by Service, then by name.

    ClusterIPs must be allocated already. Headless and ExternalName Services have no variables.
    """
    return {
        name: value
        for service in visible_services(services, pod)
        for name, value in sorted(_variables(service))
    }
