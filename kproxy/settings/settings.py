"""The settings of one run: a field for each flag, with where its value came from.

Made once, from the command line and a configuration file, and passed down. Nothing below the
command line reads a flag. Paths are text, so that this stays pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from kproxy.controlplane.ranges import Pool
from kproxy.model import Address, Network
from kproxy.probes.core.command import CommandTemplate
from kproxy.settings.text import OLDEST_NFT, SocketAddress

HEALTHZ_PORT, METRICS_PORT = 10256, 10249
"""kube-proxy's."""


class Origin(StrEnum):
    """Where a value came from. A flag wins over the configuration file."""

    DEFAULT = "default"
    FILE = "file"
    FLAG = "flag"


class LocalMode(StrEnum):
    """How pods are told from other clients (--detect-local-mode)."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


class Settings(Struct, frozen=True, kw_only=True):
    """A field for each flag of `flags.py`, and `origins`. Durations in seconds."""

    node_name: str
    """In lower case; by default the host's name."""
    manifests: tuple[str, ...] = ()
    """Files and folders; `-` is standard input. (): the running kproxy, or a cluster."""
    kubeconfig: str = ""
    """"": as a pod of the cluster does."""
    state_dir: str = "/var/lib/kproxy"
    service_cidr: tuple[Network, ...] = ()
    """The primary family first; (): not set."""
    service_node_port_range: tuple[int, int] = (30000, 32767)
    load_balancer_pool: Pool = Pool((), "")
    probe_exec: CommandTemplate = CommandTemplate("netns")
    node_ip: tuple[Address, ...] | None = None
    """None: those of the default routes."""
    nodeport_addresses: tuple[Network, ...] | None = None
    """None: the node's primary addresses."""
    detect_local_mode: LocalMode = LocalMode.CLUSTER_CIDR
    cluster_cidr: tuple[Network, ...] = ()
    pod_bridge_interface: str = ""
    pod_interface_name_prefix: str = ""
    masquerade_all: bool = False
    nodes: tuple[str, ...] = ()
    """The nodes that share the pool; (): this one alone."""
    load_balancer_interface: str = ""
    """"": where the default route leads."""
    config: str = ""
    healthz_bind_address: SocketAddress | None = SocketAddress("0.0.0.0", HEALTHZ_PORT)
    """None: not served."""
    metrics_bind_address: SocketAddress | None = SocketAddress("127.0.0.1", METRICS_PORT)
    max_silence: float = 600.0
    """0: for ever."""
    endpoint_metrics: bool = False
    sync_period: float = 300.0
    min_sync_period: float = 0.0
    verbose: bool = False
    namespace: str = "default"
    all_namespaces: bool = False
    selector: str = ""
    sort_by: str = ""
    """A JSONPath; "": by name."""
    output: str = ""
    """"": a table."""
    no_headers: bool = False
    show_labels: bool = False
    watch: bool = False
    format: str = "export"
    nft_version: tuple[int, ...] = OLDEST_NFT
    keep_state: bool = False
    origins: Mapping[str, Origin] = {}
    """Of the fields that were set; the others have their default."""

    def origin(self, field: str) -> Origin:
        """Where the value of a field came from."""
        return self.origins.get(field, Origin.DEFAULT)


def settings(flags: Mapping[str, Any], file: Mapping[str, Any], host_name: str) -> Settings:
    """The settings that a command line and a configuration file (values by field) come to."""
    origins = {**dict.fromkeys(file, Origin.FILE), **dict.fromkeys(flags, Origin.FLAG)}
    return Settings(**{"node_name": host_name, **file, **flags, "origins": origins})
