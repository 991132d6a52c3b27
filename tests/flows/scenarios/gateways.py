"""Listeners of Gateways with TCPRoutes and UDPRoutes: weights, refused shares, addresses, grants."""

from collections.abc import Iterable
from typing import Any

from tests.flows.objects import ALL_NODE, HTTP, Manifest, dead, draining, port, remote, service
from tests.flows.scenario import ONE, Scenario

GROUP = "gateway.networking.k8s.io"
POOL = "--load-balancer-pool 198.51.100.1,2001:db8:1::1"
DNS = port("dns", 53, 5353, "UDP")
BOTH = (HTTP, DNS)


def gateway(name: str, *listeners: str, created: int = 1, **spec: Any) -> Manifest:
    """Return a Gateway. A listener is written NAME PORT/PROTOCOL."""
    entries = []
    for text in listeners:
        listener, socket = text.split()
        number, protocol = socket.split("/")
        entries.append({"name": listener, "port": int(number), "protocol": protocol})
    return made("Gateway", name, created, {"gatewayClassName": "kproxy", "listeners": entries, **spec})


def route(kind: str, name: str, to: str, *backends: str, created: int = 1, namespace: str = "") -> Manifest:
    """Return a route to GATEWAY or GATEWAY/LISTENER. A backend is [NAMESPACE/]SERVICE:PORT[*WEIGHT]."""
    parent, _, section = to.partition("/")
    parents = [{"name": parent, "namespace": "default", **({"sectionName": section} if section else {})}]
    rules = [{"backendRefs": [_backend(text) for text in backends]}]
    return made(f"{kind}Route", name, created, {"parentRefs": parents, "rules": rules}, namespace)


def made(kind: str, name: str, created: int, spec: Manifest, namespace: str = "") -> Manifest:
    """Return an object of the Gateway API, created in second `created`."""
    metadata = {"name": name, "creationTimestamp": f"2026-01-01T00:00:{created:02}Z"}
    where = {"namespace": namespace} if namespace else {}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata | where, "spec": spec}


def _backend(text: str) -> Manifest:
    socket, _, weight = text.partition("*")
    name, _, number = socket.partition(":")
    namespace, slash, name = name.rpartition("/")
    return {
        "name": name,
        "port": int(number),
        **({"weight": int(weight)} if weight else {}),
        **({"namespace": namespace} if slash else {}),
    }


def in_namespace(namespace: str, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return the objects in another namespace."""
    return [each | {"metadata": each["metadata"] | {"namespace": namespace}} for each in manifests]


GRANT = made(
    "ReferenceGrant",
    "from-default",
    1,
    {
        "from": [{"group": GROUP, "kind": "TCPRoute", "namespace": "default"}],
        "to": [{"group": "", "kind": "Service", "name": "granted"}],
    },
    namespace="shop",
)

SCENARIOS = [
    Scenario(
        "Gateway on the addresses of the node",
        [
            service("one", "pod-1", ports=BOTH),
            service("two", "pod-1", "pod-2", ports=BOTH),
            service("none", dead("pod-3"), ports=BOTH),
            service("leaving", draining("pod-2"), dead("pod-3"), ports=BOTH),
        ],
        """
        outside  tcp  n1:9001  -> pod-1*7 pod-2*3 masq            # weights of backends
        pod-3    tcp  n1:9001  -> pod-1*7 pod-2*3 masq
        n1       tcp  n1:9001  -> pod-1*7 pod-2*3 masq
        outside  tcp  n1:9002  -> pod-1*3 pod-2 masq              # two endpoints of one backend
        outside  tcp  n1:9003  -> pod-1*2 refused masq            # the share of a backend without endpoints
        outside  tcp  n1:9004  -> pod-1*2 refused masq            # the share of a Service that does not exist
        outside  tcp  n1:9005  -> refused                         # no backend has an endpoint
        outside  tcp  n1:9006  -> pod-1 masq                      # weight 0
        outside  tcp  n1:9007  -> refused                         # all weights are 0
        outside  tcp  n1:9008  -> pod-1*2 pod-2 masq              # terminating endpoints
        outside  tcp  n1:9009  -> untouched                       # a listener without route
        outside  udp  n1:53    -> pod-1 pod-2*3 masq
        outside  udp  n1:54    -> pod-1*2 refused masq
        outside  udp  n1:55    -> refused
        outside  tcp  n1:53    -> untouched
        pod-1    tcp  n1:9006  -> pod-1 masq
        """,
        others=[
            gateway("edge", *(f"t{number} {number}/TCP" for number in range(9001, 9010)),
                    "u53 53/UDP", "u54 54/UDP", "u55 55/UDP"),
            route("TCP", "weights", "edge/t9001", "one:80*70", "two:80*0", "other:80*0", "pod-two:80*30"),
            route("TCP", "shared", "edge/t9002", "one:80*1", "two:80*1"),
            route("TCP", "partly", "edge/t9003", "one:80*2", "none:80*1"),
            route("TCP", "missing", "edge/t9004", "one:80*20", "nothing:80*10"),
            route("TCP", "nothing", "edge/t9005", "none:80", "nothing:80"),
            route("TCP", "zero", "edge/t9006", "one:80", "two:80*0", "none:80*0"),
            route("TCP", "zeros", "edge/t9007", "one:80*0"),
            route("TCP", "terminating", "edge/t9008", "one:80*2", "leaving:80*1"),
            route("UDP", "dns", "edge/u53", "one:53*1", "pod-two:53*3"),
            route("UDP", "partly", "edge/u54", "one:53*2", "nothing:53*1"),
            route("UDP", "nothing", "edge/u55", "one:80"),
            *service("pod-two", "pod-2", ports=BOTH).manifests(9, ONE),
        ],
    ),
    Scenario(
        "Gateways on addresses of the pool",
        [service("one", "pod-1", ports=BOTH), service("two", "pod-2", ports=ALL_NODE)],
        """
        outside  tcp  vip:80   -> pod-1 masq
        outside  udp  vip:80   -> pod-2 masq           # the same port of another protocol
        pod-3    tcp  vip:80   -> pod-1 masq
        outside  tcp  vip:81   -> pod-1 masq           # the oldest route of a listener serves
        outside  tcp  vip:82   -> refused              # a listener without route
        outside  ping vip      -> untouched
        outside  tcp  n1:90    -> pod-2 masq           # an address of the node, which the Gateway requests
        outside  tcp  n1:91    -> untouched            # the class of another controller
        """,
        others=[
            gateway("pool", "web 80/TCP", "udp 80/UDP", "old 81/TCP", "idle 82/TCP"),
            gateway("static", "web 80/TCP", "node 90/TCP", addresses=[
                {"type": "IPAddress", "value": "192.168.77.11"}, {"value": "fd77::11"}]),
            gateway("other", "web 91/TCP", gatewayClassName="other"),
            made("GatewayClass", "other", 1, {"controllerName": "example.com/other"}),
            route("TCP", "web", "pool/web", "one:80"),
            route("UDP", "udp", "pool/udp", "two:53"),
            route("TCP", "newer", "pool/old", "two:80", created=3),
            route("TCP", "older", "pool/old", "one:80", created=2),
            route("TCP", "static", "static", "two:80"),
            route("TCP", "other", "other", "two:80"),
        ],
        flags=POOL,
    ),
    Scenario(
        "Gateway and routes of several namespaces",
        [service("one", "pod-1")],
        """
        outside  tcp  n1:9001 -> pod-2 masq            # a ReferenceGrant permits the Service
        outside  tcp  n1:9002 -> pod-1 refused masq    # a ReferenceGrant does not permit the other Service
        outside  tcp  n1:9003 -> untouched             # the listener allows only its own namespace
        outside  tcp  n1:9004 -> pod-3 masq            # the listener allows all namespaces
        outside  tcp  n1:9005 -> pod-3 masq            # ... namespaces with a label
        """,
        others=[
            made("Gateway", "edge", 1, {"gatewayClassName": "kproxy", "listeners": [
                {"name": "granted", "port": 9001, "protocol": "TCP"},
                {"name": "refused", "port": 9002, "protocol": "TCP"},
                {"name": "same", "port": 9003, "protocol": "TCP"},
                {"name": "all", "port": 9004, "protocol": "TCP",
                 "allowedRoutes": {"namespaces": {"from": "All"}}},
                {"name": "labels", "port": 9005, "protocol": "TCP",
                 "allowedRoutes": {"namespaces": {"from": "Selector", "selector": {
                     "matchLabels": {"kubernetes.io/metadata.name": "shop"},
                     "matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}}}},
            ]}),
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "b"}}},
            GRANT,
            route("TCP", "granted", "edge/granted", "shop/granted:80"),
            route("TCP", "refused", "edge/refused", "one:80", "shop/own:80"),
            route("TCP", "same", "edge/same", "own:80", namespace="shop"),
            route("TCP", "all", "edge/all", "own:80", namespace="shop"),
            route("TCP", "labels", "edge/labels", "own:80", namespace="shop"),
            *in_namespace("shop", service("granted", "pod-2").manifests(8, ONE)),
            *in_namespace("shop", service("own", remote("pod-3")).manifests(9, ONE)),
        ],
    ),
]  # fmt: skip
