"""All flags as one table, from which parsing, help, man pages, completion and docs/flags.md are made.

If kube-proxy has the same flag, the name is kube-proxy's. Texts have the form of those in `verbs.py`.
`Settings` has the typed defaults. A default in backticks is the text of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from kproxy.settings import text
from kproxy.settings.settings import HEALTHZ_PORT, METRICS_PORT, LocalMode


class Group(StrEnum):
    """The headings of the help, in order."""

    INPUT = "Input"
    SELECTION = "Selection"
    OUTPUT = "Output"
    STATE = "Allocations"
    NODE = "Node"
    DATAPLANE = "Dataplane"
    LOAD_BALANCER = "Load balancer"
    DNS = "DNS"
    GATEWAY = "Gateway"
    PROBES = "Readiness probes"
    DAEMON = "Daemon"
    CONNTRACK = "Connection tracking"


class Flag(Struct, frozen=True):
    """A flag. The name of its field in Settings is its last name, with `_` for `-`."""

    names: str
    """All names, and the placeholder of the value: `-f, --filename PATH`. A switch has no placeholder."""
    verbs: str
    """The verbs that accept it, separated by spaces."""
    group: Group
    help: str
    parse: Callable[[str], Any] = str
    """Parses the text of a value. Raises ValueError. Not used for switches."""
    default: str = ""
    """A description, or the text of a value in backticks."""
    choices: tuple[str, ...] = ()
    """The allowed values; () for any value."""
    choices_of_verbs: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """The allowed values of some verbs, instead of `choices` and `suggestions`. They are not parsed."""
    suggestions: tuple[str, ...] = ()
    """Values that completion offers, although others are allowed."""
    repeated: bool = False
    """Whether it may be repeated. Then its field is a tuple of all values."""
    required_by: str = ""
    """The verbs that require it, separated by spaces."""
    completes: str = ""
    """What a shell completes, in addition to choices: `file`, `dir` or `namespace`."""
    see: str = ""
    """The page and heading in docs/ with further explanations."""
    help_of_verbs: Mapping[str, str] = MappingProxyType({})
    """What the help of some verbs says instead of `help` and the default."""

    def help_of(self, verb: str) -> str:
        """Return what the help of a verb says about it, with the default."""
        default = f" Default: {self.default}." if self.default else ""
        return self.help_of_verbs.get(verb, self.help + default)

    def choices_of(self, verb: str) -> tuple[str, ...]:
        """Return the values that a verb allows; () for any value."""
        return self.choices_of_verbs.get(verb, self.choices)

    @property
    def spellings(self) -> tuple[str, ...]:
        """All names, short ones first."""
        return tuple(word for word in self.names.replace(",", "").split() if word.startswith("-"))

    @property
    def metavar(self) -> str:
        """The placeholder of the value; "" for a switch."""
        last = self.names.split()[-1]
        return "" if last.startswith("-") else last

    @property
    def name(self) -> str:
        """Its last name, without dashes."""
        return self.spellings[-1].strip("-")

    @property
    def field(self) -> str:
        """The name of the field in Settings. Python has its own meaning for `from`."""
        return "from_" if self.name == "from" else self.name.replace("-", "_")


INPUT = "sync run compile diff get describe env explain trace doctor graph dns gateway"
RULES = "sync run compile diff explain trace doctor graph"

_TEXT_OR_JSON = ("explain", "trace", "doctor", "top", "connections")
_NOT_WITH_MANIFESTS = "; with `-f`, unchanged"
FLAGS = (
    Flag(
        "-f, --filename, --manifests PATH",
        INPUT,
        Group.INPUT,
        "A file or a folder of YAML or JSON manifests. `-` is standard input, which run and dns serve cannot "
        "follow. May be repeated. In a folder, kproxy reads the files `*.yaml`, `*.yml` and `*.json`.",
        repeated=True,
        required_by="sync compile diff",
        completes="file",
    ),
    Flag(
        "-R, --recursive",
        INPUT,
        Group.INPUT,
        "Also read the manifests in the subfolders of a folder.",
    ),
    Flag(
        "--pods-from ENGINE[=SOCKET]",
        INPUT,
        Group.INPUT,
        "With `-f`: the running containers of `podman` or `docker` are pods, too. May be repeated.",
        text.engine,
        suggestions=("podman", "docker"),
        repeated=True,
        see="containers.md",
    ),
    Flag(
        "--pod-network NAME",
        INPUT,
        Group.INPUT,
        "With `--pods-from`: the network of the containers whose addresses are used.",
        default="for each family, the first network by name that has an address",
    ),
    Flag(
        "--allow-empty",
        "sync run compile diff",
        Group.INPUT,
        "Accept paths without objects, which may remove all Services. Without this flag, sync, diff and "
        "compile refuse such input, and run removes nothing while a path contains no objects.",
        see="daemon.md#files",
    ),
    Flag(
        "--strict",
        "sync compile diff get describe env graph dns gateway",
        Group.INPUT,
        "Exit with status 1 also if there are only warnings, for example about unknown fields.",
    ),
    Flag(
        "--dry-run",
        "sync",
        Group.OUTPUT,
        "Print what would change, and change nothing.",
    ),
    Flag(
        "--kubeconfig FILE",
        "run",
        Group.INPUT,
        "Without `-f`: how to reach the API server.",
        default="the service account of the pod that kproxy runs in",
        completes="file",
    ),
    Flag(
        "--config FILE",
        "run",
        Group.INPUT,
        "A KubeProxyConfiguration, or the ConfigMap that contains one. It sets the defaults of flags.",
        completes="file",
        see="configuration.md",
    ),
    Flag(
        "-n, --namespace NAME",
        "get describe env explain trace doctor graph dns gateway top connections",
        Group.SELECTION,
        "The namespace of the objects.",
        default="`default`; for top, and for graph without SERVICE: all",
        completes="namespace",
        help_of_verbs={
            **dict.fromkeys(
                ("get", "describe", "env", "explain", "trace", "doctor", "dns", "gateway", "connections"),
                "The namespace of the objects. Default: `default`.",
            ),
            "graph": "The namespace of SERVICE (default: `default`), or the only one to draw (default: all).",
            "top": "The only namespace to show. Default: all.",
        },
    ),
    Flag(
        "-A, --all-namespaces",
        "get describe",
        Group.SELECTION,
        "Show the objects of all namespaces, with a column for the namespace.",
    ),
    Flag(
        "-l, --selector SELECTOR",
        "get describe",
        Group.SELECTION,
        "Show the objects whose labels match all of: `KEY=VALUE`, `KEY!=VALUE`, `KEY in (VALUE,...)`, "
        "`KEY notin (VALUE,...)`, `KEY`, `!KEY`, separated by commas.",
    ),
    Flag(
        "-o, --output FORMAT",
        "get explain trace doctor graph top connections",
        Group.OUTPUT,
        "`wide` adds columns; `name` prints `service/web`; `yaml` and `json` print the objects as kproxy "
        "uses them: the fields that it reads, with defaults and allocations. `jsonpath=TEMPLATE` and "
        "`custom-columns=HEADER:PATH,...` print parts of them, with kubectl's JSONPath. explain, "
        "trace, doctor, top and connections have only `json`, and graph has `svg` (the default) and `dot`.",
        text.output_format,
        default="a table, or text",
        suggestions=(*text.OUTPUTS, *(f"{name}=" for name in text.OUTPUTS_WITH_ARGUMENT)),
        see="viewing.md#output-formats",
        choices_of_verbs={**dict.fromkeys(_TEXT_OR_JSON, ("json",)), "graph": ("svg", "dot")},
        help_of_verbs={
            **dict.fromkeys(_TEXT_OR_JSON, "`json` prints JSON instead of text."),
            "graph": "`svg` or `dot`, the language of Graphviz. Default: `svg`.",
        },
    ),
    Flag("--no-headers", "get", Group.OUTPUT, "Show tables without the line of headings."),
    Flag("--show-labels", "get", Group.OUTPUT, "Show labels as the last column."),
    Flag(
        "--sort-by JSONPATH",
        "get",
        Group.OUTPUT,
        "Sort by a field, for example `.metadata.creationTimestamp`.",
        default="by name",
    ),
    Flag(
        "-w, --watch",
        "get",
        Group.OUTPUT,
        "Show the objects, and then each one that changes, until Ctrl-C. Cannot be combined with `-f`.",
    ),
    Flag(
        "--kernel",
        "explain doctor",
        Group.INPUT,
        "With `-f`: also read the table in the kernel, and say what differs; doctor also looks at this host. "
        "Needs root. Without `-f`, this is the default.",
    ),
    Flag("--send", "trace", Group.INPUT, "Send the packet from this node, instead of waiting for one."),
    Flag(
        "--timeout DURATION",
        "trace",
        Group.INPUT,
        "How long to wait for a packet.",
        text.seconds,
        default="`10s`",
    ),
    Flag(
        "--interval DURATION",
        "top connections",
        Group.OUTPUT,
        "The time between two readings of the counters, from which rates are computed. top makes it longer "
        "if reading takes much CPU time.",
        text.interval,
        default="`2s`",
    ),
    Flag(
        "--once",
        "top",
        Group.OUTPUT,
        "Print one table and end, also on a terminal. With `-o json`, and if the output is not a terminal, "
        "this is the default.",
    ),
    Flag(
        "--rules",
        "explain",
        Group.OUTPUT,
        "Also show the rule behind each step, its handle in the kernel, and its elements.",
    ),
    Flag(
        "--source-port PORT",
        "explain",
        Group.SELECTION,
        "The client's port. Only a Service with a consistent hash of addresses and ports depends on it.",
        text.port,
        default="any",
    ),
    Flag(
        "--from CLIENT",
        "doctor",
        Group.SELECTION,
        "The client that cannot reach SERVICE: an address, `pod/NAME`, or `node` for this node.",
        default="any",
    ),
    Flag(
        "--interface NAME",
        "explain",
        Group.SELECTION,
        "The interface on which the packet arrives at this node. Only `--pod-bridge-interface` and "
        "`--pod-interface-name-prefix` depend on it.",
        text.interface_name,
        default="that of a pod if the sender is one, else another",
    ),
    Flag(
        "--format FORMAT",
        "env",
        Group.OUTPUT,
        "`export` for a shell, `docker` for lines `NAME=value`, `json` for a JSON object.",
        default="`export`",
        choices=("export", "docker", "json"),
    ),
    Flag(
        "--nft-version VERSION",
        "compile",
        Group.OUTPUT,
        "The version of nft that will load the script. The default is the oldest supported version.",
        text.nft_version,
        default="`1.0.6`",
    ),
    Flag(
        "-v, --verbose",
        "sync run dns",
        Group.OUTPUT,
        "Print every change of a round. Without it, kproxy prints the first 40 of each round.",
    ),
    Flag(
        "--state-dir DIR",
        f"{INPUT} cleanup",
        Group.STATE,
        "The folder for allocated addresses and node ports, and for the socket of the running kproxy.",
        default="`/var/lib/kproxy`",
        completes="dir",
    ),
    Flag(
        "--keep-state",
        "cleanup",
        Group.STATE,
        "Remove the tables, but keep the allocations for a later sync.",
    ),
    Flag(
        "--service-cidr CIDR[,CIDR]",
        INPUT,
        Group.STATE,
        "The ranges from which ClusterIPs are allocated. In a dual-stack network, the default family of "
        "Services is first. If the flag is set, Services cannot request other addresses, and sync and run "
        "drop packets to unused addresses of the ranges.",
        text.network_per_family,
        default="10.96.0.0/12, and no packet is dropped; in a cluster, its ServiceCIDRs",
    ),
    Flag(
        "--service-node-port-range FIRST-LAST",
        INPUT,
        Group.STATE,
        "The range from which node ports are allocated. If the flag is set, Services cannot request node "
        "ports outside it.",
        text.port_range,
        default="`30000-32767`",
    ),
    Flag(
        "--node-name NAME",
        INPUT,
        Group.NODE,
        "This node's name, in any case. It decides which endpoints are local, and which Node of the input is "
        "this one.",
        text.node_name,
        default="the host name",
    ),
    Flag(
        "--node-ip IP[,IP]",
        INPUT,
        Group.NODE,
        "This node's primary addresses, one per family.",
        text.addresses,
        default="the InternalIPs of its Node, else its ExternalIPs, else the addresses of the default routes",
    ),
    Flag(
        "--nodeport-addresses CIDR[,CIDR]",
        INPUT,
        Group.NODE,
        "The ranges of this node's addresses on which node ports are served. `primary` stands for "
        "`--node-ip`, and `all` for every address. Loopback addresses are never used.",
        text.nodeport_addresses,
        default="`primary`",
    ),
    Flag(
        "--detect-local-mode MODE",
        RULES,
        Group.DATAPLANE,
        "How kproxy recognizes pods: `ClusterCIDR`, `NodeCIDR`, `BridgeInterface` or `InterfaceNamePrefix`.",
        LocalMode,
        default="`ClusterCIDR`",
        choices=tuple(LocalMode),
        see="#how-kproxy-recognizes-pods",
    ),
    Flag(
        "--cluster-cidr CIDR[,CIDR]",
        RULES,
        Group.DATAPLANE,
        "For mode `ClusterCIDR`: the ranges of pod addresses.",
        text.networks,
        default="no ranges; kproxy then recognizes no pods",
    ),
    Flag(
        "--pod-bridge-interface NAME",
        RULES,
        Group.DATAPLANE,
        "For mode `BridgeInterface`: the bridge to which this node's pods are connected.",
    ),
    Flag(
        "--pod-interface-name-prefix PREFIX",
        RULES,
        Group.DATAPLANE,
        "For mode `InterfaceNamePrefix`: the prefix of the names of the pods' interfaces.",
    ),
    Flag(
        "--deny-external-addresses CIDR,...",
        INPUT,
        Group.DATAPLANE,
        "Serve no Service on an external IP or load-balancer address in these ranges. Each such address is a "
        "problem of its Service.",
        text.networks,
        see="security.md#who-may-take-an-address",
    ),
    Flag(
        "--masquerade-all",
        RULES,
        Group.DATAPLANE,
        "Masquerade all connections to ClusterIPs, including those from pods.",
    ),
    Flag(
        "--max-endpoint-counters N",
        "sync run compile diff",
        Group.DATAPLANE,
        "Count new connections by endpoint only in a table of at most this many endpoints; `0` for none. A "
        "counter costs 16 bytes of kernel memory for each CPU, and half of the time in which the kernel adds "
        "an endpoint.",
        text.count,
        default="`100000`",
        see="metrics.md#how-connections-are-counted",
    ),
    Flag(
        "--bridge-hairpin NAME[,NAME...]",
        "sync run",
        Group.DATAPLANE,
        "The bridges of pods on which to turn hairpin on, for each port that leads to a pod. With "
        "`net.bridge.bridge-nf-call-iptables` 1, pods need it to reach themselves through a Service.",
        text.interface_names,
        default="no bridges",
        see="containers.md#pods-behind-one-bridge",
    ),
    Flag(
        "--load-balancer-pool RANGE[,RANGE...]",
        INPUT,
        Group.LOAD_BALANCER,
        "The ranges from which Services of type LoadBalancer get an address if their status has none: CIDRs "
        "or `FIRST-LAST`, of either family.",
        text.address_pool,
        default="no ranges",
    ),
    Flag(
        "--nodes NAME[,NAME...]",
        "sync run diff",
        Group.LOAD_BALANCER,
        "The nodes that share `--load-balancer-pool`. One of them announces each address.",
        text.node_names,
        default="this node only",
        see="services.md#where-such-an-address-is",
    ),
    Flag(
        "--load-balancer-interface NAME",
        "sync run diff",
        Group.LOAD_BALANCER,
        "The interface that gets the addresses of the pool.",
        text.interface_name,
        default="for each family, the interface of the default route",
    ),
    Flag(
        "--no-dns",
        "run",
        Group.DNS,
        "Answer no DNS queries. In a cluster, this is the default.",
        see="../kproxy/dns/README.md",
    ),
    Flag(
        "--cluster-domain DOMAIN",
        "run describe dns",
        Group.DNS,
        "The domain of the names of Services and pods.",
        text.domain,
        default="`cluster.local`",
    ),
    Flag(
        "--cluster-dns IP[,IP]",
        "run dns",
        Group.DNS,
        "The addresses of the name server, one per family. run adds them to the interface `lo`.",
        text.addresses,
        default="the tenth address of each service range",
    ),
    Flag(
        "--upstream IP[:PORT][,...]",
        "run dns",
        Group.DNS,
        "The DNS servers for names outside the cluster domain. An empty value refuses such names.",
        text.upstreams,
        default="those in `--resolv-conf`",
    ),
    Flag(
        "--listen IP:PORT[,IP:PORT...]",
        "dns",
        Group.DNS,
        "For `dns serve`: the addresses on which to answer.",
        text.socket_addresses,
        default="`127.0.0.1:53`",
    ),
    Flag(
        "--resolv-conf FILE",
        "run dns doctor",
        Group.DNS,
        "The resolv.conf of this host: its servers are the upstream servers, and its search list follows "
        "that of the cluster in a pod's file.",
        default="`/etc/resolv.conf`",
        completes="file",
    ),
    Flag(
        "--zone DOMAIN",
        "dns",
        Group.DNS,
        "For `dns zone`: the zone to print, for example `96.10.in-addr.arpa`.",
        text.domain,
        default="the cluster domain",
    ),
    Flag(
        "--apply",
        "dns",
        Group.DNS,
        "For `dns connect`: write the file, and restart the resolver. Needs root.",
    ),
    Flag(
        "--undo",
        "dns",
        Group.DNS,
        "For `dns connect`: remove the file again, and restart the resolver. Needs root.",
    ),
    Flag(
        "--resolver NAME",
        "dns",
        Group.DNS,
        "For `dns connect`: the resolver of this host.",
        default="the one that `--resolv-conf` and the running services show",
        choices=text.RESOLVERS,
    ),
    Flag(
        "--gateway",
        "run",
        Group.GATEWAY,
        "Serve Ingresses and HTTPRoutes: start HAProxy, and keep its configuration up to date. Needs `-f`, "
        "and the program `haproxy`.",
        see="ingress.md#how-haproxy-is-driven",
    ),
    Flag(
        "--gateway-socket SOCKET",
        "run",
        Group.GATEWAY,
        "With `--gateway`: start no HAProxy, but configure and reload one that another program starts with "
        "`haproxy -W -S SOCKET -f STATE_DIR/gateway/current`. SOCKET is an absolute path.",
        text.absolute_path,
        completes="file",
        see="ingress.md#an-haproxy-of-its-own-unit",
    ),
    Flag(
        "--gateway-ports HTTP,HTTPS",
        "run gateway",
        Group.GATEWAY,
        "The ports on which Ingresses are served.",
        text.two_ports,
        default="`80,443`",
    ),
    Flag(
        "--host HOST[,HOST]",
        "gateway",
        Group.GATEWAY,
        "For `gateway cert`: the hosts of the certificate. The first label may be `*`.",
        text.host_names,
    ),
    Flag(
        "--gateway-controller",
        "run",
        Group.GATEWAY,
        "In a cluster: follow the Gateway API, serve its TCP and UDP routes, and write the status of its "
        "objects to the API server. Of several nodes with this flag, one writes it.",
        see="gateway.md#in-a-cluster",
    ),
    Flag(
        "--probe-exec HOW",
        "run dns",
        Group.PROBES,
        "How to run the command of an exec probe in its container: `netns` (`ip netns exec POD`), `docker`, "
        "`podman`, `nerdctl`, or a command line with `{namespace}`, `{pod}` and `{container}`.",
        text.command_template,
        default="`netns`",
    ),
    Flag(
        "--healthz-bind-address IP:PORT",
        "run",
        Group.DAEMON,
        "Where to serve `/healthz` and `/livez`. An empty value turns them off.",
        partial(text.listen_address, port=HEALTHZ_PORT),
        default="`0.0.0.0:10256`; with `-f`, `127.0.0.1:10256`",
    ),
    Flag(
        "--status-page",
        "run",
        Group.DAEMON,
        "Serve a page for browsers at `/` of the address for `/healthz`: Services, endpoints, events, and "
        "what the doctor found. Only clients that connect to a loopback address get it, unless "
        "`--healthz-bind-address` is on the command line.",
        see="health.md#the-status-page",
    ),
    Flag(
        "--metrics-bind-address IP:PORT",
        "run",
        Group.DAEMON,
        "Where to serve `/metrics`. An empty value turns it off.",
        partial(text.listen_address, port=METRICS_PORT),
        default="`127.0.0.1:10249`",
    ),
    Flag(
        "--max-silence DURATION",
        "run",
        Group.DAEMON,
        "`/healthz` fails if the API server has sent nothing for this time. `0s` turns this check off.",
        text.seconds,
        default="`10m`",
    ),
    Flag(
        "--start-jitter DURATION",
        "run",
        Group.DAEMON,
        "In a cluster: wait for a random time, at most this long, before the first request to the server. "
        "Then nodes that start together do not all list together.",
        text.seconds,
        default="`0s`",
        see="scale.md#5000-nodes",
    ),
    Flag(
        "--kube-api-content-type TYPE",
        "run",
        Group.DAEMON,
        "In a cluster: the format in which the API server is to send objects, as in kube-proxy: "
        "`application/vnd.kubernetes.protobuf` or `application/json`. Protobuf costs the server less time.",
        text.content_type,
        default=f"`{text.CONTENT_TYPES[0]}`",
        suggestions=text.CONTENT_TYPES,
        see="cluster.md#formats",
    ),
    Flag("--endpoint-metrics", "run", Group.DAEMON, "Also count connections per endpoint."),
    Flag(
        "--sync-period DURATION",
        "run",
        Group.DAEMON,
        "The interval between full comparisons of the tables. A comparison is skipped if no other program "
        "has committed anything to nftables since the last one. Changes that other programs make to kproxy's "
        "tables are noticed immediately.",
        text.seconds,
        default="`5m`",
    ),
    Flag(
        "--no-table-owner",
        "run",
        Group.DAEMON,
        "Let other programs change kproxy's tables, and repair what they change. Without this flag, kproxy "
        "owns its tables if the kernel can do that (Linux 6.9): no other program can change or delete them.",
        see="reconcile.md#the-owner-of-the-tables",
    ),
    Flag(
        "--min-sync-period DURATION",
        "run",
        Group.DAEMON,
        "The minimum time from one round to the next.",
        text.seconds,
        default="`0s`",
    ),
    Flag(
        "--conntrack-max-per-core N",
        "run",
        Group.CONNTRACK,
        "The maximum number of tracked connections per CPU. `0` does not change the maximum.",
        text.count,
        default=f"`32768`{_NOT_WITH_MANIFESTS}",
        see="configuration.md#connection-tracking",
    ),
    Flag(
        "--conntrack-min N",
        "run",
        Group.CONNTRACK,
        "The lower limit of this maximum, regardless of the number of CPUs.",
        text.count,
        default=f"`131072`{_NOT_WITH_MANIFESTS}",
    ),
    Flag(
        "--conntrack-tcp-timeout-established DURATION",
        "run",
        Group.CONNTRACK,
        "How long the kernel tracks an established TCP connection without packets. `0s` does not change it.",
        text.seconds,
        default=f"`24h`{_NOT_WITH_MANIFESTS}",
    ),
    Flag(
        "--conntrack-tcp-timeout-close-wait DURATION",
        "run",
        Group.CONNTRACK,
        "How long the kernel tracks a TCP connection that one side has closed. `0s` does not change it.",
        text.seconds,
        default=f"`1h`{_NOT_WITH_MANIFESTS}",
    ),
    Flag(
        "--conntrack-tcp-be-liberal",
        "run",
        Group.CONNTRACK,
        "Also translate TCP segments outside the window, so that they do not reset a connection.",
    ),
    Flag(
        "--conntrack-udp-timeout DURATION",
        "run",
        Group.CONNTRACK,
        "How long the kernel tracks a UDP flow without a reply. `0s` does not change it.",
        text.seconds,
        default="`0s`",
    ),
    Flag(
        "--conntrack-udp-timeout-stream DURATION",
        "run",
        Group.CONNTRACK,
        "How long the kernel tracks a UDP flow with replies. `0s` does not change it.",
        text.seconds,
        default="`0s`",
    ),
    Flag(
        "--init-only",
        "run",
        Group.CONNTRACK,
        "Set the connection tracking settings and exit, for an init container with more privileges.",
    ),
)


def flags_of(verb: str) -> list[Flag]:
    """Return the flags that a verb accepts, sorted by group."""
    order = list(Group)
    return sorted(
        (flag for flag in FLAGS if verb in flag.verbs.split()), key=lambda flag: order.index(flag.group)
    )
