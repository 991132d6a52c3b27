"""The verbs of the command line as data, from which the help, the man pages and the completion are made.

Texts are plain sentences. Literal text is in backticks. The help omits these, and the man pages print the
text in bold.
"""

from __future__ import annotations

from typing import NamedTuple


class Operand(NamedTuple):
    """The arguments of a verb other than flags."""

    metavar: str
    required: bool = True
    several: bool = False
    words: int = 1
    """The number of words, unless it has several."""
    choices: tuple[str, ...] = ()
    """The allowed values; () for any value."""

    @property
    def usage(self) -> str:
        """The text for it in the usage of its verb, for example `[SERVICE...]`."""
        text = f"{self.metavar}..." if self.several else self.metavar
        return text if self.required else f"[{text}]"


class Verb(NamedTuple):
    """A verb. `cli/` has a module for each."""

    name: str
    summary: str
    """The text in lists of verbs, without full stop."""
    description: tuple[str, ...]
    """Paragraphs."""
    examples: tuple[tuple[str, str], ...]
    """The purpose of a command, and the command."""
    usages: tuple[str, ...] = ()
    """The text after `kproxy VERB [FLAGS]` in the usage, one line for each form; () for the operand only."""
    operand: Operand | None = None
    takes_flags: bool = True
    """Whether the verb has flags of `flags.py`. If not, it runs without settings."""
    replaces_kube_proxy: bool = False
    """Whether the verb also accepts kube-proxy's flags (`kubeproxy_flags.py`)."""

    @property
    def module(self) -> str:
        """The name of the module in `cli/`. `compile` is a built-in function of Python."""
        return "compile_" if self.name == "compile" else self.name


_KINDS = (
    "A KIND is `services` (`svc`), `endpoints` (`ep`), `pods` (`po`), `endpointslices`, `ingresses` (`ing`), "
    "`nodes` (`no`), the workloads `deployments` (`deploy`), `replicasets` (`rs`), `replicationcontrollers` "
    "(`rc`), `statefulsets` (`sts`) and `daemonsets` (`ds`), or `all` for pods, Services and workloads. "
    "Those of the Gateway API are `gatewayclasses` (`gc`), `gateways` (`gtw`), `httproutes`, `tcproutes`, "
    "`udproutes` and `referencegrants` (`refgrant`), together `gateway-api`. "
    "`componentstatuses` (`cs`) are the parts of the running kproxy. "
    "kproxy starts no pods: it counts those that exist and match the selector of a workload."
)
_TARGETS = ("KIND[,KIND...] [NAME...]", "KIND/NAME...")
_INPUT = (
    "Without `-f`, kproxy shows the objects of the running kproxy, and ignores the flags for allocations, "
    "node and load balancer, except `--state-dir`. With `-f`, it reads manifests. It uses the allocations in "
    "`--state-dir`, but does not change them."
)

_VERBS = (
    Verb(
        "sync",
        "program the Services into the kernel, and print what changed",
        (
            "Make the nftables tables of kproxy contain exactly the Services of the manifests. Elements "
            "that are already correct are not touched. An invalid object is reported and left out; what was "
            "programmed for it before stays.",
            "sync needs root, and nf_tables in the kernel. If one of them is missing, the error names it.",
        ),
        (
            ("Program the Services of a folder:", "kproxy sync -f services/"),
            ("Print every change:", "kproxy sync -v -f web.yaml -f pods.yaml"),
            (
                "Masquerade connections that do not come from a pod:",
                "kproxy sync -f services/ --cluster-cidr 10.244.0.0/16",
            ),
        ),
        usages=("-f PATH...",),
    ),
    Verb(
        "run",
        "keep the Services programmed while they change, until SIGTERM",
        (
            "Program the Services, and keep them programmed while the input changes. With `-f`, the input is "
            "a file or a folder. kproxy then allocates addresses, as sync does, and carries out the "
            "readiness probes of this node's pods. Without `-f`, kproxy follows the API of a cluster, in "
            "place of kube-proxy.",
            "Changes that other programs make to kproxy's tables are reverted. SIGTERM and Ctrl-C end kproxy "
            "and leave the tables as they are, and the HAProxy of `--gateway` running. On SIGHUP, kproxy "
            "reads the input again, and compares and repairs the tables.",
            "run also accepts all other flags of kube-proxy 1.36, such as `--hostname-override` and `--v=2`. "
            "If a flag has no effect in kproxy, a warning says why.",
        ),
        (
            ("Follow a folder of manifests:", "kproxy run -f /etc/kproxy/manifests"),
            ("Follow a cluster:", "kproxy run --kubeconfig /etc/kproxy/kubeconfig"),
            ("Take over from kube-proxy:", "kproxy run --config /var/lib/kube-proxy/config.conf"),
        ),
        replaces_kube_proxy=True,
    ),
    Verb(
        "diff",
        "show what a sync would change",
        (
            "Compare the tables of this host with the manifests, and print what `kproxy sync` would change: "
            "a line for each address and port, and then one for each element. Nothing is changed. The exit "
            "status is 1 if something would change, or cannot be read.",
            "`+` stands for something new, `-` for something removed, `~` for other endpoints, and `!` for a "
            "chain, set or element that another program changed. diff needs root.",
        ),
        (
            ("What a sync of a folder would change:", "kproxy diff -f services/"),
            ("In a script:", "kproxy diff -f services/ > /dev/null || echo changes are pending"),
        ),
        usages=("-f PATH...",),
    ),
    Verb(
        "compile",
        "print the ruleset as an nft script",
        (
            "Print the complete ruleset as an nft script. `nft -f` loads it, and replaces existing tables of "
            "kproxy. Equal input gives equal bytes. Allocations in `--state-dir` are used, but not "
            "changed. compile needs no root.",
        ),
        (
            ("Load the ruleset with nft:", "kproxy compile -f services/ | nft -f -"),
            ("For a recent nft:", "kproxy compile -f services/ --nft-version 1.1.3"),
        ),
        usages=("-f PATH...",),
    ),
    Verb(
        "get",
        "list Services, endpoints, pods and other objects",
        (
            "List objects as kubectl does, with the addresses, node ports and endpoints that they have. "
            + _INPUT,
            _KINDS,
            "`-o yaml` and `-o json` print the fields that kproxy reads, with defaults and allocations "
            "filled in. AGE comes from creationTimestamp. READY counts the ready containers of a pod: by "
            "the results of its probes, or by its status if it has no probes. `<unknown>` means that the "
            "manifest does not contain the value.",
        ),
        (
            ("Services and endpoints of the running kproxy:", "kproxy get svc,ep"),
            ("One Service of a folder of manifests:", "kproxy get svc web -f services/ -o yaml"),
            ("Pods of all namespaces with a label, as they change:", "kproxy get pods -A -l app=web -w"),
        ),
        usages=_TARGETS,
        operand=Operand("KIND", several=True),
    ),
    Verb(
        "describe",
        "show Services, endpoints, pods and other objects in detail",
        (
            "Show objects in detail. For a Service: what kubectl shows, then each address and port on which "
            "this node serves it, with its endpoints, and its problems. For a pod: also the results of its "
            "readiness probes and its Services. " + _INPUT,
            _KINDS,
        ),
        (
            ("One Service:", "kproxy describe svc web"),
            ("A pod and its Services:", "kproxy describe pod/web-1 -n shop"),
            ("From manifests:", "kproxy describe svc web -f services/"),
        ),
        usages=_TARGETS,
        operand=Operand("KIND", several=True),
    ),
    Verb(
        "env",
        "print the environment variables that a pod has for Services",
        (
            "Print the environment variables that a kubelet gives to a pod: for the Services of its "
            "namespace, and for the Service kubernetes of namespace default. " + _INPUT,
        ),
        (
            ("Set them in this shell:", 'eval "$(kproxy env web-1)"'),
            ("For a container of Docker:", "kproxy env shop/web-1 --format docker > web-1.env"),
        ),
        usages=("POD", "NAMESPACE/POD"),
        operand=Operand("POD"),
    ),
    Verb(
        "explain",
        "say what the tables do with a connection, and why",
        (
            "Follow a connection through the tables of this node, step by step: which Service and endpoints "
            "it reaches, with which probability, whether its source is replaced, and why; or why it is "
            "refused or dropped. No packet is sent. " + _INPUT,
            "Without `-f`, or with `--kernel`, explain also reads the table in the kernel. It says what "
            "differs there, and where an affinity entry leads the client.",
            "FROM is an address, `pod/NAME`, or `node` for this node. TO is `HOST:PORT`, "
            "`HOST:PORT/PROTOCOL`, or `HOST/icmp` for ping. HOST is an address, `node`, or a Service: "
            "`web`, `shop/web`, `web.shop.svc`. PORT is a number or the name of a port of the Service.",
        ),
        (
            ("A pod that connects to a Service:", "kproxy explain pod/web-1 shop/web:80"),
            ("A client from outside, at a node port:", "kproxy explain 192.0.2.7 node:30080 -f services/"),
            ("With rules, their handles, and elements:", "kproxy explain node web:http --rules"),
        ),
        operand=Operand("FROM TO", words=2),
    ),
    Verb(
        "trace",
        "show which rules a packet matches in the kernel",
        (
            "Let the kernel report each rule that one packet matches, in the tables of all programs, and "
            "say what became of the packet. trace waits for a packet from FROM to TO, or sends one with "
            "`--send`. FROM and TO are those of explain. trace needs root.",
            "A table named kproxy-trace-PID starts the trace. It affects no packet, and the kernel deletes "
            "it when the command ends. The exit status is 1 if no packet came.",
        ),
        (
            ("A connection from this node:", "kproxy trace node web:80 --send"),
            ("The next packet of a client:", "kproxy trace 192.0.2.7 node:30080 --timeout 1m"),
        ),
        operand=Operand("FROM TO", words=2),
    ),
    Verb(
        "doctor",
        "look for the causes of a Service that does not answer",
        (
            "Look for known causes in the input, in the kernel and on this host. For each cause that was "
            "found, print its id, how sure doctor is, the evidence, and one thing to do. Nothing is changed. "
            "docs/troubleshooting.md lists all causes.",
            "doctor asks each DNS server of the cluster once, and asks the network whether other hosts have "
            "a load-balancer address that kproxy added to this one. If SERVICE is named, doctor also opens "
            "TCP connections to those endpoints of the Service whose sockets it cannot read, for example on "
            "other nodes, and asks the resolver of this host for the name of the Service. It sends no other "
            "packets.",
            "Without `-f`, doctor asks the running kproxy, and looks at the kernel and the host, for which "
            "it needs root. With `-f`, it looks at manifests only, and needs no root, unless `--kernel` is "
            "set.",
            "SERVICE is `web`, `shop/web`, `web.shop.svc`, or the destination of a connection as in explain: "
            "`web:80`, `10.96.0.10:80/udp`, `web/icmp`. Without it, doctor looks at all Services.",
            "The exit status is 0 if nothing was found, 1 with findings, and 2 if doctor found nothing but "
            "could not look everywhere.",
        ),
        (
            ("All Services, and this host:", "kproxy doctor"),
            ("A connection that fails:", "kproxy doctor shop/web:80 --from pod/client"),
            ("Manifests only:", "kproxy doctor -f services/"),
        ),
        operand=Operand("SERVICE", required=False),
    ),
    Verb(
        "graph",
        "draw Services with their frontends and endpoints",
        (
            "Print a picture of the Services on this node: the address and port of each frontend, its "
            "endpoints with their share of new connections, the endpoints that get none and why, and the "
            "policies of the Service. " + _INPUT,
            "Without SERVICE, the Services of all namespaces are drawn, or those of `-n`; at most 500. "
            "`-o svg` prints a picture for browsers, `-o dot` the same for graphviz.",
        ),
        (
            ("All Services of a folder:", "kproxy graph -f services/ > services.svg"),
            ("Some Services of the running kproxy:", "kproxy graph web shop/cart > web.svg"),
            ("With graphviz:", "kproxy graph -f services/ -o dot | dot -Tpdf > services.pdf"),
        ),
        operand=Operand("SERVICE", required=False, several=True),
    ),
    Verb(
        "top",
        "show the connections of all Services while they change",
        (
            "Show, for each Service, new connections per second and in total, live connections and those "
            "without an answer, and refused connections. The numbers are those of this node, from the "
            "counters of the tables and the kernel's connection tracking. top needs root, but no running "
            "kproxy.",
            "On a terminal, the screen is updated until `q` or Ctrl-C. `s`, `n`, `t`, `l`, `u`, `r` and `f` "
            "sort by the columns in this order. `/` filters by a part of the name, and Escape removes the "
            "filter. The arrow keys, Page Up and Page Down move through the list. Enter shows the endpoints "
            "of a Service. top takes less than one percent of a CPU: with very many Services it updates the "
            "screen less often.",
        ),
        (
            ("All Services:", "kproxy top"),
            ("One table, for a script:", "kproxy top --once -o json"),
            ("The Services of a namespace:", "kproxy top -n shop"),
        ),
    ),
    Verb(
        "connections",
        "show the connections of a Service by endpoint",
        (
            "Show new connections per second and in total, live connections and those without an answer, for "
            "each endpoint of a Service, and what the Service refused and why. The command measures for as "
            "long as `--interval`. It needs root, but no running kproxy.",
        ),
        (
            ("A Service:", "kproxy connections web"),
            ("Of another namespace, over a minute:", "kproxy connections shop/web --interval 1m"),
            ("For a script:", "kproxy connections web -o json"),
        ),
        usages=("SERVICE", "NAMESPACE/SERVICE"),
        operand=Operand("SERVICE"),
    ),
    Verb(
        "dns",
        "serve or print the DNS names of Services, and let pods or this host use them",
        (
            "`dns serve` answers questions for the names of Services and pods on `--listen`, and follows the "
            "manifests, until SIGTERM. On SIGHUP, it reads all of them again. It changes no table, and needs "
            "no root for a port above 1023. It reads the allocations in `--state-dir` at its start.",
            "`dns zone` prints the names of the Services and pods as a zone file (RFC 1035) for BIND, Knot "
            "or NSD: those in the cluster domain, or in `--zone`. " + _INPUT,
            "`dns resolv-conf` prints the resolv.conf of a pod in the namespace of `-n`, as a kubelet makes "
            "it.",
            "`dns connect` prints what lets this host itself find Services by name: a file of "
            "systemd-resolved, dnsmasq or unbound, and the command that makes the resolver read it. "
            "`--apply` writes this file and runs the command. `--undo` removes the file.",
        ),
        (
            ("Answer on loopback:", "kproxy dns serve -f services/ --listen 127.0.0.1:5353"),
            ("The zone of a folder of manifests:", "kproxy dns zone -f services/ > cluster.local.zone"),
            ("Let this host find Services by name:", "kproxy dns connect --apply"),
        ),
        usages=("serve -f PATH...", "zone", "resolv-conf", "connect"),
        operand=Operand("COMMAND", choices=("serve", "zone", "resolv-conf", "connect")),
    ),
    Verb(
        "gateway",
        "print which Service gets which HTTP request, or HAProxy's configuration for that",
        (
            "`gateway routes` prints which requests go to which Services, as a table, for the Ingresses and "
            "HTTPRoutes of the manifests. In the column PATH, `/a` is this path only, `/a*` is this path and "
            "all paths below it, such as `/a/b`, and `~/a` is a regular expression.",
            "`gateway render` prints what HAProxy would get for them: its configuration, with the endpoints, "
            "and its maps. Equal input gives equal bytes. Certificates are checked, but not printed.",
            "`gateway cert` prints a Secret with a new self-signed certificate for `--host`, made by "
            "openssl. Clients do not trust it.",
            "`run --gateway` serves the requests. docs/ingress.md describes what Ingresses can contain, and "
            "docs/gateway.md what HTTPRoutes can.",
        ),
        (
            ("Which Service gets which request:", "kproxy gateway routes -f services/"),
            ("HAProxy's configuration:", "kproxy gateway render -f services/"),
            ("A certificate for tests:", "kproxy gateway cert --host kubia.example.com > services/tls.yaml"),
        ),
        usages=("routes -f PATH...", "render -f PATH...", "cert --host HOST[,HOST]"),
        operand=Operand("COMMAND", choices=("routes", "render", "cert")),
    ),
    Verb(
        "cleanup",
        "remove kproxy's tables, addresses and state from this host",
        (
            "Remove the load-balancer addresses that kproxy added to this host's interfaces, the tables "
            "`ip kproxy` and `ip6 kproxy`, and the allocations in `--state-dir`. Stop the HAProxy of "
            "`kproxy run --gateway`. Nothing else is changed.",
        ),
        (
            ("Remove everything:", "kproxy cleanup"),
            ("Keep the allocated addresses for a later sync:", "kproxy cleanup --keep-state"),
        ),
    ),
    Verb(
        "help",
        "show this help, or the help of a verb",
        ("Show the verbs of kproxy, or the flags and examples of one verb, as `kproxy VERB --help` does.",),
        (("The verbs:", "kproxy help"), ("The flags of get:", "kproxy help get")),
        operand=Operand("VERB", required=False),
        takes_flags=False,
    ),
    Verb(
        "version",
        "print the version",
        ("Print the version of kproxy.",),
        (("This kproxy:", "kproxy version"), ("The same:", "kproxy --version")),
        takes_flags=False,
    ),
    Verb(
        "completion",
        "print the script that completes commands in a shell",
        (
            "Print a script that makes bash, zsh or fish complete verbs, flags, kinds, choices and the names "
            "of the running kproxy's objects.",
        ),
        (
            ("In this bash:", 'eval "$(kproxy completion bash)"'),
            ("In every zsh, in ~/.zshrc:", 'eval "$(kproxy completion zsh)"'),
            (
                "In every fish:",
                "kproxy completion fish > ~/.config/fish/completions/kproxy.fish",
            ),
        ),
        operand=Operand("SHELL", choices=("bash", "zsh", "fish")),
        takes_flags=False,
    ),
)

VERBS = {verb.name: verb for verb in _VERBS}
"""By name, in the order of the help."""

SUMMARY = "Kubernetes Services as an nftables dataplane, from manifests or from a cluster."
DESCRIPTION = (
    "kproxy compiles Kubernetes Services into the nftables tables `ip kproxy` and `ip6 kproxy`. sync and run "
    "program them into the kernel: sync once, from manifests, and run continuously, also from the API of a "
    "cluster, in place of kube-proxy. get, describe and env show what the running kproxy serves."
)
"""The description in the man page of kproxy itself."""
STATUSES = (
    (0, "success"),
    (1, "something was left out or failed"),
    (2, "usage error"),
    (130, "interrupted (Ctrl-C)"),
)
"""Exit statuses and their meanings."""


def usage(verb: Verb | None) -> list[str]:
    """Return the usage of a verb, or of kproxy itself: one line for each form."""
    return [f"{'       ' if number else 'Usage: '}{form}" for number, form in enumerate(forms(verb))]


def forms(verb: Verb | None) -> list[str]:
    """Return the forms of a command: `kproxy VERB [FLAGS] ...`."""
    if verb is None:
        return ["kproxy VERB [FLAGS]"]
    start = f"kproxy {verb.name}" + (" [FLAGS]" if verb.takes_flags else "")
    usages = verb.usages or (verb.operand.usage if verb.operand else "",)
    return [f"{start} {form}".rstrip() for form in usages]
