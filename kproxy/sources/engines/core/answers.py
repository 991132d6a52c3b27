"""The answers of a container engine's API, as far as kproxy reads them.

docker and podman have the same API (docker's, version 1.41). Only podman knows pods: its own API (libpod)
lists the pod of each container. Fields that are absent have their defaults.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class Health(Struct):
    """The result of a container's health checks."""

    status: str = field(name="Status", default="")
    """`healthy`, `unhealthy`, `starting`; "" or `none` without a health check."""


class State(Struct):
    """What a container does."""

    status: str = field(name="Status", default="")
    """`running`, `paused`, `stopping`, `exited`, ..."""
    health: Health | None = field(name="Health", default=None)


class Config(Struct):
    """How a container was created."""

    labels: dict[str, str] | None = field(name="Labels", default=None)
    exposed: dict[str, Any] | None = field(name="ExposedPorts", default=None)
    """By `PORT/PROTOCOL`."""


class Attachment(Struct):
    """A container's addresses in one network; "" before it starts and after it stopped."""

    ipv4: str = field(name="IPAddress", default="")
    ipv6: str = field(name="GlobalIPv6Address", default="")


class NetworkSettings(Struct):
    """The networks and ports of a container."""

    networks: dict[str, Attachment] | None = field(name="Networks", default=None)
    ports: dict[str, Any] | None = field(name="Ports", default=None)
    """By `PORT/PROTOCOL`: the exposed and the published ports."""


class HostConfig(Struct):
    """The part of the configuration that depends on the host."""

    network_mode: str = field(name="NetworkMode", default="")


class Inspected(Struct):
    """A container: `GET /containers/ID/json`."""

    id: str = field(name="Id")
    name: str = field(name="Name", default="")
    """With a leading slash."""
    created: str = field(name="Created", default="")
    restarts: int = field(name="RestartCount", default=0)
    state: State = field(name="State", default_factory=State)
    config: Config = field(name="Config", default_factory=Config)
    network_settings: NetworkSettings = field(name="NetworkSettings", default_factory=NetworkSettings)
    host_config: HostConfig = field(name="HostConfig", default_factory=HostConfig)


class Listed(Struct):
    """A container in the list: `GET /containers/json`."""

    id: str = field(name="Id")


class Member(Struct):
    """A container in podman's list, with its pod: `GET /libpod/containers/json`."""

    id: str = field(name="Id")
    pod: str = field(name="Pod", default="")
    """The ID of its pod; "" if it is in none."""
    pod_name: str = field(name="PodName", default="")
    infra: bool = field(name="IsInfra", default=False)
    """Whether it only holds the pod's network."""


class Created(Struct):
    """A command that was created in a container: `POST /containers/ID/exec`."""

    id: str = field(name="Id")


class Executed(Struct):
    """A command in a container: `GET /exec/ID/json`."""

    running: bool = field(name="Running", default=False)
    exit_code: int | None = field(name="ExitCode", default=None)
    pid: int = field(name="Pid", default=0)
    """The number of its process on the engine's host; 0 if it does not run."""


class EngineFault(Struct):
    """Why a request failed."""

    message: str = ""


class Actor(Struct):
    """The object of an event."""

    id: str = field(name="ID", default="")
    attributes: dict[str, str] | None = field(name="Attributes", default=None)


class Event(Struct):
    """An event: a line of `GET /events`."""

    type: str = field(name="Type", default="")
    """`container` or `network`."""
    action: str = field(name="Action", default="")
    actor: Actor = field(name="Actor", default_factory=Actor)

    @property
    def stops(self) -> bool:
        """Whether a container was told to stop. docker says so before the process has ended."""
        signal = (self.actor.attributes or {}).get("signal", "")
        return self.action == "kill" and signal in ("15", "SIGTERM", "9", "SIGKILL")

    @property
    def container(self) -> str:
        """The ID of the container that may have changed; "" if none has."""
        if self.type == "network" and self.action in ("connect", "disconnect"):
            # docker's event has the ID of the network, podman's that of the container.
            return (self.actor.attributes or {}).get("container", self.actor.id)
        if self.type == "network":
            return ""
        is_command = self.action.startswith("exec")  # health checks and probes make such events, too
        return "" if is_command else self.actor.id
