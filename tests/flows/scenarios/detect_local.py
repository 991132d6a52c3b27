"""How kproxy recognizes pods, and the rules that depend on it."""

from functools import partial

from tests.flows.objects import HTTP_NODE, node, port, remote, service
from tests.flows.scenario import TWO, Scenario

PREFIX = "--detect-local-mode InterfaceNamePrefix --pod-interface-name-prefix"
BRIDGE = "--detect-local-mode BridgeInterface --pod-bridge-interface"
SERVICES = [
    service("web", "pod-2", ports=(HTTP_NODE,), type="NodePort"),
    service("local", "pod-2", remote("pod-3"), vips=("vip",), externalTrafficPolicy="Local"),
]
NODES = [node("n1", TWO), node("n2", TWO)]
ON_TWO = [
    service("web", "n1-pod-1", ports=(HTTP_NODE,), type="NodePort"),
    service(
        "local",
        "n1-pod-1",
        "n1-pod-2",
        ports=[port("http", 80, 8080, node=30081)],
        type="NodePort",
        externalTrafficPolicy="Local",
    ),
]
by_node_cidr = partial(
    Scenario, services=ON_TWO, topology=TWO, others=NODES, flags="--detect-local-mode NodeCIDR"
)

SCENARIOS = [
    Scenario(
        "InterfaceNamePrefix",
        SERVICES,
        """
        pod-1    tcp  web:80   -> pod-2
        pod-2    tcp  web:80   -> pod-2 masq
        n1       tcp  web:80   -> pod-2 masq
        outside  tcp  web:80   -> pod-2 masq
        outside  tcp  n1:30080 -> pod-2 masq
        pod-1    tcp  vip:80   -> pod-2 pod-3
        outside  tcp  vip:80   -> pod-2
        n1       tcp  vip:80   -> pod-2 pod-3 masq
        """,
        flags=f"{PREFIX} pod-",
    ),
    Scenario(
        "InterfaceNamePrefix of other interfaces",
        SERVICES,
        """
        pod-1    tcp  web:80   -> pod-2 masq
        outside  tcp  web:80   -> pod-2
        pod-1    tcp  vip:80   -> pod-2
        outside  tcp  vip:80   -> pod-2 pod-3
        """,
        flags=f"{PREFIX} eth",
    ),
    Scenario(
        "InterfaceNamePrefix, --masquerade-all",
        SERVICES,
        """
        pod-1    tcp  web:80   -> pod-2 masq
        pod-1    tcp  vip:80   -> pod-2 pod-3
        outside  tcp  vip:80   -> pod-2
        """,
        flags=f"{PREFIX} pod- --masquerade-all",
    ),
    Scenario(
        "BridgeInterface",
        SERVICES,
        """
        pod-1    tcp  web:80   -> pod-2
        pod-3    tcp  web:80   -> pod-2 masq
        n1       tcp  web:80   -> pod-2 masq
        outside  tcp  web:80   -> pod-2 masq
        pod-1    tcp  vip:80   -> pod-2 pod-3
        outside  tcp  vip:80   -> pod-2
        """,
        flags=f"{BRIDGE} pod-1",
    ),
    by_node_cidr(
        "NodeCIDR",
        rows="""
        n1-pod-2 tcp  web:80   -> n1-pod-1
        n2-pod-1 tcp  web:80   -> n1-pod-1
        n1       tcp  web:80   -> n1-pod-1 masq
        outside  tcp  web:80   -> n1-pod-1 masq
        n2-pod-1 tcp  n2:30081 -> n1-pod-1 n1-pod-2
        n2-pod-1 tcp  n1:30081 -> n1-pod-1 n1-pod-2
        n1-pod-1 tcp  n2:30081 -> dropped
        outside  tcp  n2:30081 -> dropped
        """,
        cluster_cidr=False,
    ),
    by_node_cidr(
        "NodeCIDR with clients from other nodes",
        rows="""
        n2-pod-1 tcp  n1:30080 -> n1-pod-1 masq
        n1-pod-1 tcp  n1:30081 -> n1-pod-1/masq n1-pod-2
        """,
    ),
    Scenario(
        "ClusterCIDR with two nodes",
        ON_TWO,
        """
        n1-pod-2 tcp  n2:30080 -> n1-pod-1 masq
        n1-pod-1 tcp  n1:30081 -> n1-pod-1/masq n1-pod-2
        n2-pod-1 tcp  n1:30081 -> n1-pod-1 n1-pod-2
        outside  tcp  n2:30081 -> dropped
        """,
        topology=TWO,
    ),
]
