"""Makes the gateway of a daemon from the settings. It is imported only by a daemon that has a gateway."""

from __future__ import annotations

from pathlib import Path

from kproxy.gateway.core.ingress import Ports
from kproxy.gateway.driver import Driver
from kproxy.gateway.existing import Existing
from kproxy.gateway.folder import Folders
from kproxy.gateway.gateway import Gateway
from kproxy.gateway.process import Own, program
from kproxy.gateway.renderer import Renderer
from kproxy.problems import HostError
from kproxy.settings.settings import Settings
from kproxy.sources.source import FollowedSource

STATE_BYTES = 74
"""The longest path of the folder of the gateway with --gateway-socket.

HAProxy allows 97 bytes for the path of a socket. The rest is for `/1234/haproxy-1234.sock`.
"""


def gateway(folders: Folders, settings: Settings, source: FollowedSource) -> Gateway:
    """Return what drives HAProxy: its own, or the one of --gateway-socket. Raises HostError."""
    master = settings.gateway_socket
    if master and len(bytes(folders.path.absolute())) > STATE_BYTES:
        raise HostError(
            f"{folders.path} has more than {STATE_BYTES} bytes: with --gateway-socket, a shorter --state-dir "
            "is needed, because HAProxy limits the paths of its sockets."
        )
    program()
    launcher = Existing(folders, Path(master)) if master else Own(folders)
    return Gateway(Driver(folders, launcher), source, Renderer(Ports(*settings.gateway_ports)))
