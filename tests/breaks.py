"""The breaks: for each cause of the doctor, a row that breaks exactly that.

A row changes a healthy input, or healthy facts where no test may break the real thing (the whole host's
connection tracking, the clock). The doctor must then name the cause of the row, and no other. Rows that break
a lab are in tests/stories/test_doctor_in_a_lab.py.
"""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec.structs import replace

from kproxy.dns.core.resolv import ResolvConf
from kproxy.doctor.core.asked import parse_asked
from kproxy.doctor.core.cause import Unseen
from kproxy.doctor.core.facts import (
    Bridge,
    Certificate,
    Daemon,
    Difference,
    Facts,
    Flow,
    Listening,
    Names,
    PathMTU,
    Routes,
    Structure,
    Tracking,
)
from kproxy.doctor.core.objects import Objects
from kproxy.kernel.netlink.core.route import ListeningSocket
from kproxy.model import Address, Family, Protocol, parse_address
from kproxy.nft.foreign import (
    NETWORK,
    TRANSPORT,
    Foreign,
    ForeignChain,
    ForeignExemption,
    ForeignTest,
    ForeignTranslation,
)
from kproxy.problems import Problem
from kproxy.reconcile.core.report import QUARANTINED
from kproxy.show.snapshot import Failure, Snapshot
from tests.unit.make import manifest, service
from tests.unit.make import name as name_of

Object = dict[str, Any]
World = dict[str, Object]
"""Manifests by a name of their own."""
FLAGS = "--node-name n1 --node-ip 192.0.2.1 --cluster-cidr 10.244.0.0/16 --service-cidr 10.96.0.0/16"


def pod(own: str, address: str, node: str = "n1", **labels: str) -> Object:
    """Return a ready pod with the named port http."""
    return manifest(
        "Pod",
        own,
        metadata={"labels": labels or {"app": "web"}, "creationTimestamp": "2023-11-01T00:00:00Z"},
        spec={
            "nodeName": node,
            "containers": [{"name": "main", "ports": [{"containerPort": 8080, "name": "http"}]}],
        },
        status={"podIPs": [{"ip": address}], "conditions": [{"type": "Ready", "status": "True"}]},
    )


def healthy() -> World:
    """Return an input without any finding."""
    return {
        "n1": manifest("Node", "n1", status={"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}),
        "web-1": pod("web-1", "10.244.1.2"),
        "web-2": pod("web-2", "10.244.2.2", node="n2"),
        "other-1": pod("other-1", "10.244.1.3", app="other"),
        "web": service(
            "web",
            type="NodePort",
            clusterIP="10.96.0.1",
            selector={"app": "web"},
            ports=[
                {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080},
                {"name": "dns", "port": 53, "targetPort": 5353, "protocol": "UDP", "nodePort": 30053},
            ],
        ),
        "balanced": service(
            "balanced",
            type="LoadBalancer",
            clusterIP="10.96.0.2",
            selector={"app": "web"},
            loadBalancerSourceRanges=["203.0.113.0/24"],
            ports=[{"name": "http", "port": 80, "targetPort": 8080}],
        )
        | {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}},
        "sliced": service("sliced", clusterIP="10.96.0.3", ports=[{"name": "http", "port": 80}]),
        "slice": manifest(
            "EndpointSlice",
            "sliced-1",
            metadata={"labels": {"kubernetes.io/service-name": "sliced"}},
            addressType="IPv4",
            ports=[{"name": "http", "port": 9000}],
            endpoints=[{"addresses": ["10.244.2.9"], "nodeName": "n2"}, {"addresses": ["10.244.1.9"], "nodeName": "n1"}],
        ),
        "headless": service("headless", clusterIP="None", selector={"app": "none"}),
        "outer": service("outer", type="ExternalName", externalName="example.com"),
    }  # fmt: skip


class InputBreak(NamedTuple):
    """A change of the input, or a question that goes wrong."""

    id: str
    change: Callable[[World], object]
    question: str = ""
    expected: str = ""
    """A part of the output."""


def _nothing(_: World) -> None: ...


def _spec(key: str, **fields: Any) -> Callable[[World], None]:
    return lambda world: world[key].setdefault("spec", {}).update(fields)


def _ports(key: str, *ports: Object) -> Callable[[World], None]:
    return _spec(key, ports=list(ports))


def _unready(*keys: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        for key in keys:
            world[key]["status"]["conditions"][0]["status"] = "False"

    return change


def _ended(*keys: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        for key in keys:
            world[key]["status"] = {"phase": "Succeeded"}

    return change


def _without(*keys: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        for key in keys:
            del world[key]

    return change


def _change(key: str, **fields: Any) -> Callable[[World], None]:
    return lambda world: world[key].update(fields)


def _also(own: str, **spec: Any) -> Callable[[World], None]:
    """Add a Service that is like `sliced`."""
    return lambda world: world.update(
        {own: service(own, **{"selector": {"app": "web"}, "ports": [{"port": 80}], **spec})}
    )


def gateway(*backends: str) -> Callable[[World], None]:
    """Add a Gateway at this node's port 81, and a route to these Services."""
    edge = {"listeners": [{"name": "tcp", "port": 81, "protocol": "TCP"}], "gatewayClassName": "kproxy"}
    refs = [{"name": each, "port": 80} for each in backends]
    route = {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": refs}]}
    return lambda world: world.update(
        {
            own: manifest(kind, own, spec=spec) | {"apiVersion": "gateway.networking.k8s.io/v1"}
            for own, kind, spec in (("edge", "Gateway", edge), ("tcp", "TCPRoute", route))
        }
    )


INPUT_BREAKS = (
    InputBreak("KP001", _nothing, "wbe", "a similar name in namespace default: web"),
    InputBreak("KP001", _nothing, "shop/web", "namespace default has a Service web"),
    InputBreak("KP002", _spec("web", selector={"app": "wbe"}), "", "the pods of this namespace have app=other, web"),
    InputBreak("KP002", _spec("web", selector={"tier": "front"}), "web", "have no label tier"),
    InputBreak("KP002", _ended("web-1", "web-2"), "web:80", "ended: web-1 (Succeeded), web-2 (Succeeded)"),
    InputBreak("KP003", _unready("web-1"), "web", "1 of 2 pods are not ready"),
    InputBreak("KP003", _unready("web-1", "web-2"), "balanced", "Pod web-1: condition Ready is not True"),
    InputBreak("KP003", _change("slice", endpoints=[{"addresses": ["10.244.2.9"], "conditions": {"ready": False}}]), "", "1 of 1 endpoints are not ready"),
    InputBreak("KP004", _ports("web", {"port": 80, "targetPort": "htpp"}), "", "2 of 2 pods have no port named htpp"),
    InputBreak("KP005", _ports("sliced", {"name": "web", "port": 80}), "", "no port named 'web'"),
    InputBreak("KP006", _without("slice"), "", "no EndpointSlice belongs to it"),
    InputBreak("KP006", _change("slice", endpoints=[]), "sliced", "no endpoint in 1 EndpointSlice"),
    InputBreak("KP007", _change("web-2", status={}), "web", "no status.podIPs: Pod web-2"),
    InputBreak("KP008", _spec("web", clusterIP="10.97.0.1"), "web", "is not in --service-cidr"),
    InputBreak("KP009", _also("twin", clusterIP="10.96.0.9", externalIPs=["198.51.100.7"]), "", "Service default/balanced has 198.51.100.7:80/tcp"),
    InputBreak("KP010", _nothing, "headless", "clusterIP: None"),
    InputBreak("KP010", _nothing, "outer", "a name in DNS for example.com"),
    InputBreak("KP011", lambda world: (_spec("sliced", internalTrafficPolicy="Local")(world), world["slice"]["endpoints"].pop()), "sliced", "its endpoints are on n2"),
    InputBreak("KP011", lambda world: (_spec("web", externalTrafficPolicy="Local")(world), world.pop("web-1")), "web", "packets from outside are dropped"),
    InputBreak("KP012", _change("balanced", status={}), "", "status.loadBalancer is empty"),
    InputBreak("KP014", _spec("web", externalIPs=["192.0.2.77"]), "web --deny-external-addresses 192.0.2.64/26", "192.0.2.77 is refused"),
    InputBreak("KP015", _spec("web", externalIPs=["192.0.2.1"]), "web", "192.0.2.1 is the address of this node"),
    InputBreak("KP020", _nothing, "web:8080", "its ports are 80/tcp (http), 53/udp (dns)"),
    InputBreak("KP020", _nothing, "balanced:8080", "8080 is the target port of port 80"),
    InputBreak("KP020", _nothing, "10.96.0.1:30080", "30080 is the node port of port 80"),
    InputBreak("KP021", _nothing, "web:53/tcp", "it has 53/udp (dns)"),
    InputBreak("KP022", _nothing, "web/icmp", "ping does not show"),
    InputBreak("KP023", _nothing, "web --from 203.0.113.9", "from outside: 192.0.2.1:30080/tcp"),
    InputBreak("KP024", _nothing, "198.51.100.7:80 --from 10.244.9.9", "do not contain 10.244.9.9"),
    InputBreak("KP025", _nothing, "192.0.2.2:30080", "it serves node ports on 192.0.2.1"),
    InputBreak("KP026", _nothing, "10.96.0.77:80", "no Service has this address"),
    InputBreak("KP030", _ports("sliced", {"port": 80000}), "sliced", "spec.ports[0].port"),
    InputBreak("KP030", _change("web-2", apiVersion="v2"), "", "Pod"),
    InputBreak("KP030", _nothing, "web -f missing.yaml", "missing.yaml: No such file"),
    InputBreak("KP031", _nothing, "web --node-name n9", "the Nodes are n1"),
    InputBreak("KP032", _nothing, "web --cluster-cidr 10.244.1.0/24", "outside: 10.244.2.2"),
    InputBreak("KP033", _nothing, "web --cluster-cidr 10.0.0.0/8", "service range 10.96.0.0/16"),
    InputBreak("KP034", lambda world: world["web-1"]["metadata"].update(creationTimestamp="2999-01-01T00:00:00Z"), "", "Pod default/web-1 was created at 2999-01-01T00:00:00Z"),
    InputBreak("KP036", gateway("sliced", "absent"), "", "spec.rules[0].backendRefs[1]: Service default/absent not found"),
    InputBreak("KP036", gateway("sliced", "absent"), "192.0.2.1:81", "Service default/absent not found"),
    InputBreak("KP036", lambda world: (gateway("sliced")(world), world["edge"]["spec"].update(addresses=[{"value": "203.0.113.1"}])), "", "203.0.113.1"),
)  # fmt: skip


# --- facts ---


DOCKER = ForeignChain("ip", "nat", "PREROUTING", "prerouting", -100, rules=1)


def _translation(*constants: bytes) -> ForeignTranslation:
    """A rule of Docker that publishes a port."""
    return ForeignTranslation(ForeignChain("ip", "nat", "DOCKER", rules=2), frozenset(constants), -100)


def _exempts(*tests: ForeignTest, priority: int = -300) -> ForeignExemption:
    """A rule with notrack."""
    return ForeignExemption(
        ForeignChain("inet", "raw", "pre", "prerouting", priority, rules=1), tests, priority
    )


def _test(place: str, offset: int, value: bytes) -> ForeignTest:
    return ForeignTest(place, offset, b"\xff" * len(value), ((value, value),))


OF_OTHERS = (
    _exempts(_test(NETWORK, 16, parse_address("198.18.0.1"))),
    _exempts(_test(NETWORK, 12, parse_address("203.0.113.9"))),
    _exempts(priority=-150),
)
"""Rules that exempt no packets of Services, or too late."""


def _flow(
    snapshot: Snapshot, own: str = "web:http", at: str = "10.244.1.2", unanswered: int = 0, total: int = 1
) -> Flow:
    """Connections to the ClusterIP of a Service."""
    frontend = next(f for f in snapshot.frontends if str(f.owner) == f"default/{own}")
    return Flow(frontend, (parse_address(at), 8080), unanswered, total)


def _listeners(*addresses: str, ports: tuple[int, ...] = (8080,)) -> tuple[ListeningSocket, ...]:
    """The sockets of a pod: TCP ports, and the target port of dns."""
    found = [
        ListeningSocket(Protocol.TCP, parse_address(address), port) for address in addresses for port in ports
    ]
    return (*found, ListeningSocket(Protocol.UDP, bytes(16), 5353))


DNS_SERVER, OTHER_SERVER = parse_address("10.96.0.10"), parse_address("9.9.9.9")


def _conf(
    server: Address = DNS_SERVER, search: str = "default.svc.cluster.local", ndots: int = 5
) -> ResolvConf:
    """The resolv.conf of a pod."""
    return ResolvConf((server,), tuple(search.split()), ndots)


def _names(facts: Facts, conf: ResolvConf) -> Facts:
    """Change the resolv.conf of web-1."""
    return facts._replace(names=Names({DNS_SERVER: ""}, {parse_address("10.244.1.2"): conf}))


def asked_from(facts: Facts, client: str) -> Facts:
    """Ask about a connection of a client."""
    assert isinstance(facts.objects, Objects)
    asked = parse_asked("web", client, "default", facts.objects.snapshot)
    return facts._replace(asked=asked, objects=Objects(facts.objects.snapshot, asked.services))


def healthy_facts(snapshot: Snapshot) -> Facts:
    """Return the facts of a host without any finding."""
    return Facts(
        Objects(snapshot),
        None,
        Daemon(),
        (Family.IPV4, Family.IPV6),
        {
            "net.ipv4.ip_forward": 1,
            "net.ipv6.conf.all.forwarding": 0,
            "net.ipv4.conf.eth0.rp_filter": 1,
            "net.bridge.bridge-nf-call-iptables": 1,
        },
        {"IPReversePathFilter": 0},
        Tracking(1000, 262144),
        Routes({}, {}),
        Foreign(
            (ForeignChain("ip", "filter", "FORWARD", "forward"), DOCKER),
            (_translation(b"\x1f\x90"),),
            OF_OTHERS,
        ),
        (),
        Structure(),
        (_flow(snapshot, unanswered=2, total=50),),
        {"ip affinity-tcp": 1000},
        (Bridge("br0", Family.IPV4, 2, ()),),
        PathMTU(1450, {parse_address("10.244.2.2"): 1450}),
        Listening({parse_address("10.244.1.2"): _listeners("0.0.0.0", "::")}, {}),
        {},
        Names({DNS_SERVER: ""}, {parse_address("10.244.1.2"): _conf()}),
        (Certificate("client-certificate of kubeconfig", "2023-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),),
        programs=_listeners("0.0.0.0", "::", ports=(22, 80, 8080)),
        now="2023-11-13T23:59:00Z",
        soon="2023-11-14T00:00:00Z",
    )


class FactsBreak(NamedTuple):
    """A change of the facts."""

    id: str
    change: Callable[[Facts], Facts]
    expected: str = ""


def _of_snapshot(facts: Facts, **fields: Any) -> Facts:
    assert isinstance(facts.objects, Objects)
    return facts._replace(objects=Objects(replace(facts.objects.snapshot, **fields)))


def _held(facts: Facts) -> Facts:
    assert isinstance(facts.objects, Objects)
    held = {name_of("web"): "web.yaml cannot be read"}
    return _of_snapshot(facts, inventory=replace(facts.objects.inventory, held=held))


def _sysctl(facts: Facts, **values: int) -> Facts:
    assert isinstance(facts.sysctls, dict)
    return facts._replace(sysctls={**facts.sysctls, **values})


def _foreign(facts: Facts, *chains: ForeignChain) -> Facts:
    return facts._replace(foreign=Foreign(chains, ()))


def _of(facts: Facts, **fields: Any) -> Flow:
    assert isinstance(facts.objects, Objects)
    return _flow(facts.objects.snapshot, **fields)


def _listening(facts: Facts, *sockets: ListeningSocket) -> Facts:
    return facts._replace(listening=Listening({parse_address("10.244.1.2"): sockets}, {}))


def _rejected(facts: Facts) -> Facts:
    failure = Failure("2023-11-14T00:00:00Z", "Service default/web", "the kernel refused an element")
    problem = Problem("", "Service default/web", "", QUARANTINED)
    return _of_snapshot(facts, problems=[problem], last_errors=(failure,))


FACTS_BREAKS = (
    FactsBreak("KP013", _held, "web.yaml cannot be read"),
    FactsBreak("KP035", lambda facts: facts._replace(now="2024-06-01T00:00:00Z"), "client-certificate of kubeconfig: the certificate has expired"),
    FactsBreak("KP035", lambda facts: facts._replace(now="2022-06-01T00:00:00Z"), "the certificate is not valid yet"),
    FactsBreak("KP040", lambda facts: facts._replace(daemon=Daemon("cannot connect")), "cannot connect"),
    FactsBreak("KP041", lambda facts: facts._replace(tables=(Family.IPV6,)), "the kernel has no table ip kproxy"),
    FactsBreak("KP042", _rejected, "the kernel refused an element"),
    FactsBreak("KP043", lambda facts: _of_snapshot(facts, unhealthy=("IPv4: a change is not programmed yet",)), "a change is not programmed yet"),
    FactsBreak("KP044", lambda facts: facts._replace(differences=(Difference("Service default/web", "~ default/web"),)), "~ default/web"),
    FactsBreak("KP045", lambda facts: facts._replace(structure=Structure(changed=("ip kproxy translated",))), "changed: ip kproxy translated"),
    FactsBreak("KP046", lambda facts: facts._replace(structure=Structure(lacking=("the kernel lacks fib",))), "the kernel lacks fib"),
    FactsBreak("KP047", lambda facts: _of_snapshot(facts, address_failures=("198.51.100.7 is already configured by another program",)), "by another program"),
    FactsBreak("KP048", lambda facts: facts._replace(claimants={parse_address("198.51.100.7"): "02:00:00:00:00:01"}), "another host has the load-balancer address 198.51.100.7"),
    FactsBreak("KP050", lambda facts: _sysctl(facts, **{"net.ipv4.ip_forward": 0}), "net.ipv4.ip_forward = 0"),
    FactsBreak("KP051", lambda facts: facts._replace(counters={"IPReversePathFilter": 7}), "rp_filter is 1 (strict) on eth0"),
    FactsBreak("KP052", lambda facts: facts._replace(tracking=Tracking(262144, 262144)), "full: new connections are dropped"),
    FactsBreak("KP052", lambda facts: facts._replace(tracking=Tracking(240000, 262144)), "almost full"),
    FactsBreak("KP053", lambda facts: facts._replace(routes=Routes({parse_address("10.96.0.1"): "Network is unreachable"}, {})), "10.96.0.1: Network is unreachable"),
    FactsBreak("KP054", lambda facts: facts._replace(routes=Routes({}, {parse_address("10.244.2.2"): "No route to host"})), "10.244.2.2: No route to host"),
    FactsBreak("KP055", lambda facts: _foreign(facts, ForeignChain("inet", "firewalld", "filter_FORWARD", "forward", drops=True, rules=9)), "chain inet firewalld filter_FORWARD: policy drop, 9 rules"),
    FactsBreak("KP056", lambda facts: _foreign(facts, ForeignChain("ip", "nat", "KUBE-SERVICES", rules=3)), "chains with rules: ip nat KUBE-SERVICES"),
    FactsBreak("KP056", lambda facts: _foreign(facts, ForeignChain("ip6", "kube-proxy", "services", rules=3)), "ip6 kube-proxy services"),
    FactsBreak("KP057", lambda facts: facts._replace(foreign=Foreign((), (_translation((30080).to_bytes(2, "big")),))), "translates packets to 192.0.2.1:30080/tcp"),
    FactsBreak("KP057", lambda facts: facts._replace(foreign=Foreign((), (_translation(parse_address("10.96.0.1")),))), "translates packets to 10.96.0.1:80/tcp"),
    FactsBreak("KP061", lambda facts: facts._replace(foreign=Foreign((), (), (_exempts(_test(NETWORK, 16, b"\x0a\x60")),))), "chain inet raw pre: notrack, through priority -300"),
    FactsBreak("KP061", lambda facts: facts._replace(foreign=Foreign((), (), (_exempts(_test(NETWORK, 12, parse_address("10.244.1.2"))),))), "notrack"),
    FactsBreak("KP061", lambda facts: facts._replace(foreign=Foreign((), (), (_exempts(_test(TRANSPORT, 2, b"\x00\x50")),))), "notrack"),
    FactsBreak("KP059", lambda facts: facts._replace(bridges=(Bridge("br0", Family.IPV4, 2, ("veth1",)),)), "hairpin is off on veth1"),
    FactsBreak("KP060", lambda facts: facts._replace(mtu=PathMTU(1500, {parse_address("10.244.2.2"): 1450})), "to 10.244.2.2: MTU 1450"),
    FactsBreak("KP062", lambda facts: facts._replace(programs=_listeners("0.0.0.0", ports=(22, 30080))), "a program of this node listens on 30080/tcp"),
    FactsBreak("KP062", lambda facts: facts._replace(programs=_listeners("::", ports=(30080,))), "it listens on [::]:30080"),
    FactsBreak("KP062", lambda facts: facts._replace(programs=_listeners("192.0.2.1", "127.0.0.1", ports=(30080,))), "it listens on 192.0.2.1:30080"),
    FactsBreak("KP070", lambda facts: facts._replace(flows=(_of(facts, unanswered=3, total=3), _of(facts, at="10.244.2.2", total=40))), "40 other connections got a reply"),
    FactsBreak("KP071", lambda facts: facts._replace(flows=(_of(facts, own="web:dns", at="10.244.9.9"),)), "1 UDP flow to 10.244.9.9:8080, which is not an endpoint"),
    FactsBreak("KP072", lambda facts: facts._replace(affinity={"ip affinity-tcp": 262144}), "full: further clients have no affinity"),
    FactsBreak("KP073", lambda facts: _listening(facts, *_listeners("127.0.0.1", "::1")), "it listens on 127.0.0.1:8080, [::1]:8080"),
    FactsBreak("KP074", lambda facts: _listening(facts, *_listeners("::", ports=(8081, 9090))), "its ports are 8081, 9090"),
    FactsBreak("KP074", lambda facts: _listening(facts, *_listeners()), "no socket listens"),
    FactsBreak("KP075", lambda facts: facts._replace(listening=Listening({}, {(parse_address("10.244.2.2"), 8080): "Connection refused"})), "10.244.2.2: Connection refused"),
    FactsBreak("KP080", lambda facts: facts._replace(names=Names({DNS_SERVER: "no answer in 1 s"}, {})), "10.96.0.10 does not answer"),
    FactsBreak("KP081", lambda facts: asked_from(_names(facts, _conf(OTHER_SERVER)), "pod/web-1"), "nameserver in its resolv.conf: 9.9.9.9"),
    FactsBreak("KP082", lambda facts: _names(facts, _conf(search="example.com")), "search in its resolv.conf: example.com"),
    FactsBreak("KP082", lambda facts: _names(facts, _conf(search="shop.svc.cluster.local")), "no domain default.svc."),
    FactsBreak("KP083", lambda facts: _names(facts, _conf(ndots=1)), "ndots in its resolv.conf: 1"),
    FactsBreak("KP084", lambda facts: asked_from(facts._replace(names=Names({DNS_SERVER: ""}, {}, "127.0.0.53 (in /etc/resolv.conf): NXDOMAIN")), "node"), "127.0.0.53 (in /etc/resolv.conf): NXDOMAIN"),
)  # fmt: skip
UNSEEN = Unseen("Permission denied")
