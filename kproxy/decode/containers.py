"""The containers of a Pod -> model: their ports, and their readiness probes.

What is refused is what the API server refuses. A port that is named and that the container
does not have is not: such a pod exists, and its probe fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kproxy.decode import wire
from kproxy.decode.fields import FieldError, port_number, protocol
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

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
HEADER_NAME = re.compile(r"[-A-Za-z0-9]+")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
LARGEST = 2**31 - 1


def containers(spec: wire.PodSpec) -> tuple[Container, ...]:
    """Those that run as long as the pod does: init containers that are restarted always, and the others."""
    found: dict[str, Container] = {}
    for path, given in _lasting(spec):
        container = _container(path, given)
        if container.name in found:
            raise FieldError(f"{path}.name", f"{container.name!r} is given twice")
        found[container.name or path] = container
    return tuple(found.values())


def _lasting(spec: wire.PodSpec) -> Iterator[tuple[str, wire.Container]]:
    for index, given in enumerate(spec.init_containers or []):
        if given.restart_policy == "Always":
            yield f"spec.initContainers[{index}]", given
    for index, given in enumerate(spec.containers or []):
        yield f"spec.containers[{index}]", given


def _container(path: str, given: wire.Container) -> Container:
    name = given.name or ""
    if name and (not LABEL.fullmatch(name) or len(name) > 63):
        raise FieldError(f"{path}.name", f"{name!r} is not a name: lower-case letters, digits and -")
    ports = tuple(
        EndpointPort(
            port.name or "",
            protocol(f"{path}.ports[{index}].protocol", port.protocol),
            port_number(f"{path}.ports[{index}].containerPort", port.container_port),
        )
        for index, port in enumerate(given.ports or [])
    )
    probe = None
    if given.readiness_probe is not None:
        if not name:  # elsewhere nobody needs it
            raise FieldError(f"{path}.name", "is missing")
        probe = _probe(f"{path}.readinessProbe", given.readiness_probe, ports)
    return Container(name, given.image or "", ports, probe)


def _probe(path: str, given: wire.Probe, ports: tuple[EndpointPort, ...]) -> Probe:
    return Probe(
        _action(path, given, ports),
        initial_delay=_number(f"{path}.initialDelaySeconds", given.initial_delay_seconds, 0),
        period=_number(f"{path}.periodSeconds", given.period_seconds, 10),
        timeout=_number(f"{path}.timeoutSeconds", given.timeout_seconds, 1),
        success_threshold=_number(f"{path}.successThreshold", given.success_threshold, 1),
        failure_threshold=_number(f"{path}.failureThreshold", given.failure_threshold, 3),
    )


def _number(path: str, given: int | None, default: int) -> int:
    """0 asks for the default, as in Kubernetes."""
    if given is not None and not 0 <= given <= LARGEST:
        raise FieldError(path, f"{given} is not a number from 0 to {LARGEST}")
    return given or default


def _action(
    path: str, given: wire.Probe, ports: tuple[EndpointPort, ...]
) -> ExecAction | HTTPGetAction | TCPSocketAction | GRPCAction:
    actions = [action for action in (given.exec, given.http_get, given.tcp_socket, given.grpc) if action]
    if len(actions) != 1:
        raise FieldError(path, "needs one of exec, httpGet, tcpSocket and grpc, and no second one")
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
            raise FieldError(f"{path}[{index}]", "has a null byte")
    return ExecAction(tuple(command))


def _http_get(path: str, given: wire.HTTPGetAction, ports: tuple[EndpointPort, ...]) -> HTTPGetAction:
    scheme = given.scheme or "HTTP"
    if scheme not in ("HTTP", "HTTPS"):
        raise FieldError(f"{path}.scheme", f"{scheme!r} is not one of HTTP, HTTPS")
    headers = [(header.name, header.value or "") for header in given.http_headers or []]
    for index, (name, value) in enumerate(headers):
        if not HEADER_NAME.fullmatch(name):
            raise FieldError(f"{path}.httpHeaders[{index}].name", f"{name!r} is not a name of a header")
        if CONTROL.search(value):
            raise FieldError(f"{path}.httpHeaders[{index}].value", "has control characters")
    port = _port(f"{path}.port", given.port, ports)
    return HTTPGetAction(port, given.path or "/", given.host or "", scheme, tuple(headers))


def _port(path: str, given: int | str, ports: Iterable[EndpointPort]) -> ProbePort:
    """A name may also be a number in quotes, if no port has it."""
    if isinstance(given, int):
        return ProbePort(given, port_number(path, given))
    if not given:
        raise FieldError(path, "is empty")
    number = next((port.port for port in ports if port.name == given), 0)
    if not number and given.isascii() and given.isdigit():
        number = port_number(path, int(given[:6]))
    return ProbePort(given, number)
