"""Makes the gateway of a daemon from the settings. It is imported only by a daemon that has a gateway."""

from __future__ import annotations

from pathlib import Path

from kproxy.gateway.core.ingress import Ports
from kproxy.gateway.driver import Driver
from kproxy.gateway.existing import Existing
from kproxy.gateway.folder import Folders
from kproxy.gateway.gateway import Gateway
from kproxy.gateway.process import Own, program, remove
from kproxy.gateway.renderer import Renderer
from kproxy.settings.settings import Settings
from kproxy.sources.source import FollowedSource

__all__ = ["gateway", "remove"]


def gateway(folders: Folders, settings: Settings, source: FollowedSource) -> Gateway:
    """Return what drives HAProxy: its own, or the one of --gateway-socket. Raises HostError."""
    program()
    master = settings.gateway_socket
    launcher = Existing(folders, Path(master)) if master else Own(folders)
    return Gateway(Driver(folders, launcher), source, Renderer(Ports(*settings.gateway_ports)))
