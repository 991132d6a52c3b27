"""ClusterIPs: which clients reach which endpoints, masquerading, refused and dropped packets."""

from tests.flows.objects import DNS, HTTP, port, service
from tests.flows.scenario import Scenario

PORTS = (
    HTTP,
    port("admin", 443, 8090),
    port("dns-udp", 53, 5353, "UDP"),
    port("dns-tcp", 53, 8090),
    port("dns-sctp", 53, 5353, "SCTP"),
)

SCENARIOS = [
    Scenario(
        "ClusterIP",
        [service("one", "pod-1"), service("web", "pod-1", "pod-2", ports=PORTS), service("empty")],
        """
        pod-3    tcp  one:80  -> pod-1                            # TestClusterIPGeneral
        pod-1    tcp  one:80  -> pod-1 masq                       # TestClusterIPGeneral: hairpin
        pod-3    tcp  web:80  -> pod-1:8080 pod-2:8080            # TestClusterIPGeneral
        pod-3    tcp  web:443 -> pod-1:8090 pod-2:8090            # TestClusterIPGeneral
        pod-3    tcp  web:53  -> pod-1:8090 pod-2:8090            # TestClusterIPGeneral
        pod-3    udp  web:53  -> pod-1:5353 pod-2:5353            # TestClusterIPGeneral
        pod-3    sctp web:53  -> pod-1:5353 pod-2:5353            # TestClusterIPGeneral
        pod-3    udp  web:80  -> refused                          # TestClusterIPGeneral
        pod-3    tcp  one:443 -> refused                          # TestClusterIPGeneral
        pod-3    tcp  free:80 -> dropped                          # TestClusterIPGeneral
        pod-1    tcp  web:80  -> pod-1/masq pod-2
        pod-2    udp  web:53  -> pod-1 pod-2/masq
        pod-1    sctp web:53  -> pod-1/masq pod-2
        n1       tcp  web:80  -> pod-1 pod-2 masq
        n1       udp  web:53  -> pod-1 pod-2 masq
        n1       sctp web:53  -> pod-1 pod-2 masq
        outside  tcp  web:80  -> pod-1 pod-2 masq
        outside  udp  web:53  -> pod-1 pod-2 masq
        outside  sctp web:53  -> pod-1 pod-2 masq
        pod-3    sctp web:80  -> refused
        outside  sctp one:53  -> refused
        n1       sctp one:53  -> refused
        n1       tcp  one:443 -> refused
        outside  udp  web:80  -> refused
        n1       udp  free:53 -> dropped
        outside  sctp free:53 -> dropped
        pod-3    ping one     -> dropped
        n1       ping web     -> dropped
        outside  ping web     -> dropped
        pod-3    ping empty   -> dropped
        outside  ping free    -> dropped
        pod-3    ping pod-1   -> untouched
        outside  ping n1      -> untouched
        pod-3    tcp  empty:80 -> refused
        outside  tcp  empty:80 -> refused
        n1       tcp  empty:80 -> refused
        pod-3    tcp  empty:81 -> refused
        pod-3    tcp  pod-1:8080 -> untouched
        pod-3    udp  pod-2:5353 -> untouched
        n1       tcp  pod-2:8080 -> untouched
        """,
    ),
    Scenario(
        "ClusterIP without --cluster-cidr and --service-cidr",
        [service("web", "pod-1", "pod-2", ports=(HTTP, DNS))],
        """
        pod-3    tcp  web:80  -> pod-1 pod-2
        pod-1    tcp  web:80  -> pod-1/masq pod-2
        n1       tcp  web:80  -> pod-1 pod-2
        n1       udp  web:53  -> pod-1 pod-2
        outside  tcp  web:80  -> pod-1 pod-2
        outside  udp  web:53  -> pod-1 pod-2
        outside  tcp  web:81  -> refused
        outside  tcp  free:80 -> untouched
        """,
        cluster_cidr=False,
        service_cidr="",
    ),
    Scenario(
        "a ClusterIP and an unassigned one that are addresses of the node",
        [service("web", "pod-1", "pod-2")],
        """
        pod-3    tcp  web:80  -> pod-1 pod-2
        outside  tcp  web:80  -> pod-1 pod-2 masq
        n1       tcp  web:22  -> untouched
        outside  tcp  web:22  -> untouched
        outside  ping web     -> untouched
        n1       tcp  free:22 -> untouched
        outside  tcp  free:22 -> untouched
        """,
        local=("first", "free"),
    ),
    Scenario(
        "ClusterIP, --masquerade-all",
        [service("web", "pod-1", "pod-2", ports=(HTTP, DNS))],
        """
        pod-3    tcp  web:80  -> pod-1 pod-2 masq
        pod-3    udp  web:53  -> pod-1 pod-2 masq
        pod-1    tcp  web:80  -> pod-1 pod-2 masq
        n1       tcp  web:80  -> pod-1 pod-2 masq
        outside  tcp  web:80  -> pod-1 pod-2 masq
        """,
        flags="--masquerade-all",
    ),
]
