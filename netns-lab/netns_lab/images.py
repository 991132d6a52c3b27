"""How the container of an image acts in a lab. Images are not run: this table says what stands for each.

    image               acts as
    ------------------  ---------------------------------------------------------------------------
    kubia-unhealthy     kubia, but each port answers five requests, and 500 to all others
    curl, dnsutils, busybox, alpine, debian, ubuntu, netshoot
                        a container that does nothing, for ``netns-lab exec``
    any other           kubia: HTTP with ``You've hit POD-NAME`` on each TCP port, echo on each UDP port

Only the last part of an image's name counts, without tag and digest, and a row stands
for all names that contain its name. A container whose command is ``sleep`` does nothing
either. A kubia without ports has port 8080. Ports with the names ``http-default`` and
``http-mux1`` also answer what the book's server says there.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from netns_lab.topology import Port

UNHEALTHY = "kubia-unhealthy"
IDLE = ("curl", "dnsutils", "busybox", "alpine", "debian", "ubuntu", "netshoot")
HEALTHY_REQUESTS = 5
DEFAULT = Port("", 8080)
TEXTS = {"http-default": "on default mux", "http-mux1": "on mux1"}


def ports_of(container: Mapping[str, Any]) -> tuple[Port, ...]:
    """Return the ports that a container serves, as its image does. Raises ValueError for an invalid port."""
    name = image_name(container.get("image") or "")
    command = container.get("command") or [""]
    if any(idle in name for idle in IDLE) or PurePosixPath(str(command[0])).name == "sleep":
        return ()
    ports = tuple(map(_port, container.get("ports") or ())) or (DEFAULT,)
    if UNHEALTHY in name:
        return tuple(replace(port, fails_after=HEALTHY_REQUESTS) for port in ports)
    return ports


def image_name(image: str) -> str:
    """Return the last part of an image's name, without tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _port(port: Mapping[str, Any]) -> Port:
    name, number = port.get("name") or "", port.get("containerPort")
    protocol = str(port.get("protocol") or "TCP").lower()
    if not isinstance(number, int) or not 1 <= number <= 65535:
        raise ValueError(f"containerPort {number!r} is not a port")
    if protocol not in ("tcp", "udp"):
        raise ValueError(f"port {number}: the lab has no servers for {protocol.upper()}")
    return Port(name, number, "udp" if protocol == "udp" else "tcp", TEXTS.get(name, ""))
