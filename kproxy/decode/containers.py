"""The containers of a Pod -> model: their ports and their readiness probes.

It refuses what the API server refuses. It accepts a probe whose port name the container does
not have, as the API server does: such a probe fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kproxy.decode import wire
from kproxy.decode.fields import LABEL_RULE, FieldError, port_number, protocol
from kproxy.model import (
    Container,
    EndpointPort,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    Probe,
    ProbePort,
    TCPSocketAction,
)

LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
HEADER_NAME = r"[-A-Za-z0-9]+"
CONTROL = r"[\x00-\x08\x0a-\x1f\x7f]"
LARGEST = 2**31 - 1


def containers(spec: wire.PodSpec) -> tuple[Container, ...]:
    """Return the sidecars (init containers with `restartPolicy: Always`) and the containers of a pod."""
    found: dict[str, Container] = {}
    for path, entry in _sidecars_and_containers(spec):
        container = _container(path, entry)
        if container.name in found:
            raise FieldError(f"{path}.name", f"{container.name!r} is a duplicate")
        found[container.name or path] = container
    return tuple(found.values())


def _sidecars_and_containers(spec: wire.PodSpec) -> Iterator[tuple[str, wire.Container]]:
    for index, entry in enumerate(spec.init_containers or []):
        if entry.restart_policy == "Always":
            yield f"spec.initContainers[{index}]", entry
    for index, entry in enumerate(spec.containers or []):
        yield f"spec.containers[{index}]", entry


def _container(path: str, entry: wire.Container) -> Container:
    name = entry.name or ""
    if name and (not re.fullmatch(LABEL, name) or len(name) > 63):
        raise FieldError(f"{path}.name", f"{name!r} is not a DNS label: {LABEL_RULE}")
    ports = tuple(
        EndpointPort(
            port.name or "",
            protocol(f"{path}.ports[{index}].protocol", port.protocol),
            port_number(f"{path}.ports[{index}].containerPort", port.container_port),
        )
        for index, port in enumerate(entry.ports or [])
    )
    probe = None
    if entry.readiness_probe is not None:
        if not name:  # kproxy needs the name for probes only
            raise FieldError(f"{path}.name", "is missing")
        probe = _probe(f"{path}.readinessProbe", entry.readiness_probe, ports)
    return Container(name, entry.image or "", ports, probe)


def _probe(path: str, probe: wire.Probe, ports: tuple[EndpointPort, ...]) -> Probe:
    return Probe(
        _action(path, probe, ports),
        initial_delay=_number(f"{path}.initialDelaySeconds", probe.initial_delay_seconds, 0),
        period=_number(f"{path}.periodSeconds", probe.period_seconds, 10),
        timeout=_number(f"{path}.timeoutSeconds", probe.timeout_seconds, 1),
        success_threshold=_number(f"{path}.successThreshold", probe.success_threshold, 1),
        failure_threshold=_number(f"{path}.failureThreshold", probe.failure_threshold, 3),
    )


def _number(path: str, number: int | None, default: int) -> int:
    """Check a number. 0 stands for the default, as in Kubernetes."""
    if number is not None and not 0 <= number <= LARGEST:
        raise FieldError(path, f"{number} is not a number from 0 to {LARGEST}")
    return number or default


def _action(
    path: str, probe: wire.Probe, ports: tuple[EndpointPort, ...]
) -> ExecAction | HTTPGetAction | TCPSocketAction | GRPCAction:
    actions = [action for action in (probe.exec, probe.http_get, probe.tcp_socket, probe.grpc) if action]
    if len(actions) != 1:
        raise FieldError(path, "must have exactly one of exec, httpGet, tcpSocket, grpc")
    match actions[0]:
        case wire.ExecAction(command=command):
            return _exec(f"{path}.exec.command", command or [])
        case wire.HTTPGetAction() as action:
            return _http_get(f"{path}.httpGet", action, ports)
        case wire.TCPSocketAction(port=port, host=host):
            return TCPSocketAction(_port(f"{path}.tcpSocket.port", port, ports), host or "")
        case wire.GRPCAction(port=number, service=service):
            return GRPCAction(port_number(f"{path}.grpc.port", number), service or "")


def _exec(path: str, command: list[str]) -> ExecAction:
    if not command:
        raise FieldError(path, "is missing")
    for index, word in enumerate(command):
        if "\0" in word:
            raise FieldError(f"{path}[{index}]", "contains a null byte")
    return ExecAction(tuple(command))


def _http_get(path: str, action: wire.HTTPGetAction, ports: tuple[EndpointPort, ...]) -> HTTPGetAction:
    scheme = action.scheme or "HTTP"
    if scheme not in ("HTTP", "HTTPS"):
        raise FieldError(f"{path}.scheme", f"{scheme!r} is not one of HTTP, HTTPS")
    headers = [(header.name, header.value or "") for header in action.http_headers or []]
    for index, (name, value) in enumerate(headers):
        if not re.fullmatch(HEADER_NAME, name):
            raise FieldError(f"{path}.httpHeaders[{index}].name", f"{name!r} is not an HTTP header name")
        if re.search(CONTROL, value):
            raise FieldError(f"{path}.httpHeaders[{index}].value", "contains control characters")
    port = _port(f"{path}.port", action.port, ports)
    return HTTPGetAction(port, action.path or "/", action.host or "", scheme, tuple(headers))


def _port(path: str, port: int | str, ports: Iterable[EndpointPort]) -> ProbePort:
    """Resolve a port of a probe. A string of digits is a number, unless a container port has this name."""
    if isinstance(port, int):
        return ProbePort(port, port_number(path, port))
    if not port:
        raise FieldError(path, "is empty")
    number = next((each.port for each in ports if each.name == port), 0)
    if not number and port.isascii() and port.isdigit():
        number = port_number(path, int(port[:6]))
    return ProbePort(port, number)
