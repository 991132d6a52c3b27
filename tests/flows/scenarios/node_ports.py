"""Node ports: the addresses on which they are open, and the clients that reach them."""

from tests.flows.objects import ALL_NODE, HTTP_NODE, port, service
from tests.flows.scenario import TWO, Scenario

WEB = service("web", "pod-1", "pod-2", ports=ALL_NODE, type="NodePort")

SCENARIOS = [
    Scenario(
        "NodePort",
        [WEB],
        """
        pod-3    tcp  web:80     -> pod-1 pod-2           # TestNodePorts
        outside  tcp  n1:30080   -> pod-1 pod-2 masq      # TestNodePorts
        n1       tcp  n1:30080   -> pod-1 pod-2 masq      # TestNodePorts
        outside  tcp  alt:30080  -> untouched             # TestNodePorts
        pod-3    tcp  n1:30080   -> pod-1 pod-2 masq
        pod-1    tcp  n1:30080   -> pod-1 pod-2 masq
        outside  udp  n1:30053   -> pod-1 pod-2 masq
        outside  sctp n1:30412   -> pod-1 pod-2 masq
        n1       sctp n1:30412   -> pod-1 pod-2 masq
        outside  udp  n1:30080   -> untouched
        outside  tcp  n1:30079   -> untouched
        n1       tcp  alt:30080  -> untouched
        n1       tcp  loopback:30080 -> untouched
        """,
        local=("alt", "loopback"),
    ),
    Scenario(
        "NodePort, --nodeport-addresses",
        [WEB],
        """
        pod-3    tcp  web:80     -> pod-1 pod-2           # TestNodePorts
        outside  tcp  n1:30080   -> pod-1 pod-2 masq      # TestNodePorts
        n1       tcp  n1:30080   -> pod-1 pod-2 masq      # TestNodePorts
        outside  tcp  alt:30080  -> pod-1 pod-2 masq      # TestNodePorts
        n1       udp  alt:30053  -> pod-1 pod-2 masq
        outside  sctp alt:30412  -> pod-1 pod-2 masq
        """,
        flags="--nodeport-addresses 192.168.77.0/24,192.168.88.0/24,fd77::/64,fd88::11/128",
        local=("alt",),
    ),
    Scenario(
        "NodePort, --nodeport-addresses without the primary address",
        [WEB],
        """
        outside  tcp  n1:30080   -> untouched
        n1       tcp  n1:30080   -> untouched
        outside  tcp  alt:30080  -> pod-1 pod-2 masq
        """,
        flags="--nodeport-addresses 192.168.88.0/24,fd88::/64",
        local=("alt",),
    ),
    Scenario(
        "NodePort, one number for three protocols",
        [
            service("web", "pod-1", ports=[port("http", 80, 8080, node=30080)], type="NodePort"),
            service("dns", "pod-2", ports=[port("dns", 80, 5353, "UDP", node=30080)], type="NodePort"),
            service("call", "pod-3", ports=[port("sctp", 80, 9000, "SCTP", node=30080)], type="NodePort"),
        ],
        """
        outside  tcp  n1:30080 -> pod-1:8080 masq
        outside  udp  n1:30080 -> pod-2:5353 masq
        outside  sctp n1:30080 -> pod-3:9000 masq
        pod-1    tcp  web:80   -> pod-1:8080 masq
        pod-1    udp  dns:80   -> pod-2:5353
        pod-1    sctp call:80  -> pod-3:9000
        pod-1    udp  web:80   -> refused
        pod-1    sctp dns:80   -> refused
        pod-1    tcp  call:80  -> refused
        """,
    ),
    Scenario(
        "two nodes",
        [service("web", "n1-pod-1", "n2-pod-1", ports=(HTTP_NODE,), type="NodePort")],
        """
        n1-pod-2 tcp  web:80     -> n1-pod-1 n2-pod-1
        n2-pod-2 tcp  web:80     -> n1-pod-1 n2-pod-1
        n1-pod-1 tcp  web:80     -> n1-pod-1/masq n2-pod-1
        n2-pod-1 tcp  web:80     -> n1-pod-1 n2-pod-1/masq
        n1       tcp  web:80     -> n1-pod-1 n2-pod-1 masq
        n2       tcp  web:80     -> n1-pod-1 n2-pod-1 masq
        outside  tcp  n1:30080   -> n1-pod-1 n2-pod-1 masq
        outside  tcp  n2:30080   -> n1-pod-1 n2-pod-1 masq
        n1       tcp  n2:30080   -> n1-pod-1 n2-pod-1 masq
        n1-pod-2 tcp  n2:30080   -> n1-pod-1 n2-pod-1 masq
        """,
        topology=TWO,
    ),
]
