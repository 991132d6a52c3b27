"""The settings of a command: a field for each flag, and the origin of its value.

They are made once from the command line and a configuration file, and passed on. No other module
reads flags. Paths are text, so that this module is pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct

from kproxy.controlplane.ranges import Pool
from kproxy.model import Address, Network
from kproxy.probes.core.command import CommandTemplate
from kproxy.settings.text import CONTENT_TYPES, OLDEST_NFT, EngineSocket, SocketAddress

DNS_PORT = 53
HEALTHZ_PORT, METRICS_PORT = 10256, 10249
"""The same defaults as in kube-proxy."""


class Origin(StrEnum):
    """The origin of a value. A flag overrides the configuration file."""

    DEFAULT = "default"
    FILE = "file"
    FLAG = "flag"


class LocalMode(StrEnum):
    """How kproxy distinguishes pods from other clients (--detect-local-mode)."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"


class Settings(Struct, frozen=True, kw_only=True):
    """A field for each flag of `flags.py`, and `origins`. Durations are in seconds."""

    node_name: str
    """In lower case. The default is the host's name."""
    manifests: tuple[str, ...] = ()
    """Files and folders; `-` is standard input. () for the running kproxy, or a cluster."""
    recursive: bool = False
    pods_from: tuple[EngineSocket, ...] = ()
    pod_network: str = ""
    """ "" for any network."""
    allow_empty: bool = False
    strict: bool = False
    dry_run: bool = False
    kubeconfig: str = ""
    """ "" for the credentials of a pod."""
    state_dir: str = "/var/lib/kproxy"
    service_cidr: tuple[Network, ...] = ()
    """The primary family first; () if not set."""
    service_node_port_range: tuple[int, int] = (30000, 32767)
    load_balancer_pool: Pool = Pool((), "")
    no_dns: bool = False
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[Address, ...] = ()
    """() for the tenth address of each service range."""
    upstream: tuple[SocketAddress, ...] | None = None
    """None for the servers in `resolv_conf`, () for none."""
    listen: tuple[SocketAddress, ...] = (SocketAddress("127.0.0.1", DNS_PORT),)
    resolv_conf: str = "/etc/resolv.conf"
    apply: bool = False
    undo: bool = False
    resolver: str = ""
    """ "" for the one that this host uses."""
    zone: str = ""
    """ "" for the cluster domain."""
    gateway_ports: tuple[int, int] = (80, 443)
    """For HTTP, and for HTTPS."""
    host: tuple[str, ...] = ()
    gateway: bool = False
    gateway_socket: str = ""
    """ "" to start HAProxy."""
    gateway_controller: bool = False
    probe_exec: CommandTemplate = CommandTemplate("netns")
    node_ip: tuple[Address, ...] | None = None
    """None for the InternalIPs of the Node, else the addresses of the default routes."""
    nodeport_addresses: tuple[Network, ...] | None = None
    """None for the node's primary addresses."""
    detect_local_mode: LocalMode = LocalMode.CLUSTER_CIDR
    cluster_cidr: tuple[Network, ...] = ()
    pod_bridge_interface: str = ""
    pod_interface_name_prefix: str = ""
    masquerade_all: bool = False
    max_endpoint_counters: int = 100_000
    """0 for none."""
    bridge_hairpin: tuple[str, ...] = ()
    deny_external_addresses: tuple[Network, ...] = ()
    nodes: tuple[str, ...] = ()
    """The nodes that share the pool; () for this node only."""
    load_balancer_interface: str = ""
    """ "" for the interface of the default route."""
    config: str = ""
    healthz_bind_address: SocketAddress | None = SocketAddress("0.0.0.0", HEALTHZ_PORT)
    """None if not served; metrics_bind_address likewise."""
    metrics_bind_address: SocketAddress | None = SocketAddress("127.0.0.1", METRICS_PORT)
    max_silence: float = 600.0
    """0 for no limit."""
    status_page: bool = False
    endpoint_metrics: bool = False
    no_table_owner: bool = False
    sync_period: float = 300.0
    min_sync_period: float = 0.0
    start_jitter: float = 0.0
    kube_api_content_type: str = CONTENT_TYPES[0]
    conntrack_max_per_core: int = 32768
    """0 does not change the maximum. The same holds for the other conntrack fields."""
    conntrack_min: int = 131072
    conntrack_tcp_timeout_established: float = 86400.0
    conntrack_tcp_timeout_close_wait: float = 3600.0
    conntrack_tcp_be_liberal: bool = False
    conntrack_udp_timeout: float = 0.0
    conntrack_udp_timeout_stream: float = 0.0
    init_only: bool = False
    verbose: bool = False
    namespace: str = "default"
    all_namespaces: bool = False
    selector: str = ""
    sort_by: str = ""
    """A JSONPath; "" to sort by name."""
    output: str = ""
    kernel: bool = False
    send: bool = False
    timeout: float = 10.0
    interval: float = 2.0
    once: bool = False
    rules: bool = False
    from_: str = ""
    """ "" for any client."""
    interface: str = ""
    """ "" to derive it from the sender."""
    source_port: int = 0
    """ "" for a table."""
    no_headers: bool = False
    show_labels: bool = False
    watch: bool = False
    format: str = "export"
    nft_version: tuple[int, ...] = OLDEST_NFT
    keep_state: bool = False
    origins: Mapping[str, Origin] = {}
    """The origins of the fields that were set. The others have their default."""

    def origin(self, field: str) -> Origin:
        """Return the origin of a field's value."""
        return self.origins.get(field, Origin.DEFAULT)


def settings(flags: Mapping[str, Any], file: Mapping[str, Any], host_name: str) -> Settings:
    """Make settings from the flags and the configuration file, both as values by field."""
    origins = {**dict.fromkeys(file, Origin.FILE), **dict.fromkeys(flags, Origin.FLAG)}
    return Settings(**{"node_name": host_name, **file, **flags, "origins": origins})
