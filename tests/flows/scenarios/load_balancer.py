"""Load-balancer addresses and external IPs: allowed sources, and masquerading."""

from tests.flows.objects import ALL_NODE, HTTP, HTTP_NODE, remote, service
from tests.flows.scenario import Scenario

RANGES = ["192.168.77.0/25", " 192.168.77.192/26", "fd77::/120", "fd77::200/120"]
CLIENT = ["192.168.77.200/32", "fd77::200/128"]

SCENARIOS = [
    Scenario(
        "LoadBalancer with source ranges that include the node",
        [service("web", "pod-1", ports=ALL_NODE, vips=("vip", "vip-2"), loadBalancerSourceRanges=RANGES)],
        """
        pod-3    tcp  web:80    -> pod-1              # TestLoadBalancer
        outside  tcp  n1:30080  -> pod-1 masq         # TestLoadBalancer
        blocked  tcp  n1:30080  -> pod-1 masq         # TestLoadBalancer
        outside  tcp  vip:80    -> pod-1 masq         # TestLoadBalancer
        outside  tcp  vip-2:80  -> pod-1 masq         # TestLoadBalancer
        blocked  tcp  vip:80    -> dropped            # TestLoadBalancer
        blocked  tcp  vip-2:80  -> dropped            # TestLoadBalancer
        pod-3    tcp  vip:80    -> dropped            # TestLoadBalancer
        pod-3    tcp  vip-2:80  -> dropped            # TestLoadBalancer
        n1       tcp  vip:80    -> pod-1 masq         # TestLoadBalancer
        n1       tcp  vip-2:80  -> pod-1 masq         # TestLoadBalancer
        outside  udp  vip:53    -> pod-1 masq
        outside  sctp vip:36412 -> pod-1 masq
        blocked  udp  vip:53    -> dropped
        blocked  sctp vip:36412 -> dropped
        blocked  tcp  web:80    -> pod-1 masq
        pod-1    tcp  vip:80    -> dropped
        outside  tcp  vip:81    -> untouched
        """,
    ),
    Scenario(
        "LoadBalancer whose addresses are also on the node",
        [service("web", "pod-1", ports=(HTTP_NODE,), vips=("vip", "vip-2"), loadBalancerSourceRanges=RANGES)],
        """
        n1       tcp  vip:80    -> pod-1 masq         # TestLoadBalancer: from the address itself
        n1       tcp  vip-2:80  -> pod-1 masq         # TestLoadBalancer: from the address itself
        outside  tcp  vip:80    -> pod-1 masq
        blocked  tcp  vip:80    -> dropped
        """,
        local=("vip", "vip-2"),
    ),
    Scenario(
        "LoadBalancer with a source range that is one client",
        [
            service("web", "pod-1", vips=("vip",), loadBalancerSourceRanges=CLIENT),
            service("empty", vips=("vip-2",), loadBalancerSourceRanges=CLIENT),
        ],
        """
        outside  tcp  vip:80   -> pod-1 masq
        blocked  tcp  vip:80   -> dropped
        pod-1    tcp  vip:80   -> dropped
        n1       tcp  vip:80   -> dropped
        outside  tcp  vip-2:80 -> refused
        blocked  tcp  vip-2:80 -> dropped
        pod-3    tcp  web:80   -> pod-1
        n1       tcp  web:80   -> pod-1 masq
        """,
    ),
    Scenario(
        "LoadBalancer with source ranges of one family",
        [service("web", "pod-1", vips=("vip",), loadBalancerSourceRanges=["192.168.77.200/32"])],
        """
        blocked  tcp  vip:80   -> dropped (4)
        blocked  tcp  vip:80   -> pod-1 masq (6)
        outside  tcp  vip:80   -> pod-1 masq
        """,
    ),
    Scenario(
        "LoadBalancer with an address in the pool and one outside the pool",
        [service("web", "pod-1", vips=("vip",)), service("other", "pod-2", vips=("vip-2",))],
        """
        outside  tcp  vip:80   -> pod-1 masq
        outside  tcp  vip:81   -> refused
        outside  udp  vip:80   -> refused
        outside  sctp vip:80   -> refused
        pod-3    tcp  vip:81   -> refused
        n1       tcp  vip:81   -> refused
        outside  ping vip      -> untouched
        pod-3    ping vip      -> untouched
        outside  tcp  vip-2:80 -> pod-2 masq
        outside  tcp  vip-2:81 -> untouched
        """,
        flags="--load-balancer-pool 198.51.100.1,2001:db8:1::1",
    ),
    Scenario(
        "external addresses that are the Service's own ClusterIP",
        [
            service("web", "pod-1", vips=("own", "vip"), loadBalancerSourceRanges=CLIENT),
            service("other", "pod-2", externalIPs=["own", "external"]),
            service("local", remote("pod-2"), vips=("own",), externalTrafficPolicy="Local"),
        ],
        """
        pod-3    tcp  web:80      -> pod-1
        outside  tcp  web:80      -> pod-1 masq
        blocked  tcp  web:80      -> pod-1 masq
        n1       tcp  web:80      -> pod-1 masq
        pod-3    ping web         -> dropped
        blocked  tcp  vip:80      -> dropped
        outside  tcp  vip:80      -> pod-1 masq
        pod-3    tcp  other:80    -> pod-2
        pod-3    tcp  external:80 -> pod-2 masq
        pod-3    tcp  local:80    -> pod-2
        outside  tcp  local:80    -> pod-2 masq
        """,
    ),
    Scenario(
        "LoadBalancer, ipMode",
        [
            service("web", "pod-1", vips=("vip VIP", "vip-2 Proxy")),
            service("bare", "pod-1", ports=(HTTP,), vips=("external",), allocateLoadBalancerNodePorts=False),
            service(
                "open", "pod-2", ports=(HTTP_NODE,), type="LoadBalancer", allocateLoadBalancerNodePorts=False
            ),
        ],
        """
        outside  tcp  n1:30080    -> pod-2 masq
        outside  tcp  vip:80      -> pod-1 masq       # TestLoadBalancerIngressRouteTypeProxy
        outside  tcp  vip-2:80    -> untouched        # TestLoadBalancerIngressRouteTypeProxy
        pod-3    tcp  vip:80      -> pod-1 masq
        pod-1    tcp  vip:80      -> pod-1 masq
        pod-3    tcp  vip-2:80    -> untouched
        n1       tcp  vip-2:80    -> untouched
        outside  tcp  external:80 -> pod-1 masq
        outside  ping vip         -> untouched
        """,
    ),
    Scenario(
        "external IPs",
        [
            service("web", "pod-1", "pod-2", ports=ALL_NODE[:2], type="NodePort", externalIPs=["external"]),
            service("both", "pod-1", vips=("vip",), externalIPs=["vip"], loadBalancerSourceRanges=CLIENT),
            service("bare", "pod-2", externalIPs=["vip-2"]),
        ],
        """
        outside  tcp  external:80 -> pod-1 pod-2 masq
        outside  udp  external:53 -> pod-1 pod-2 masq
        pod-3    tcp  external:80 -> pod-1 pod-2 masq
        n1       tcp  external:80 -> pod-1 pod-2 masq
        outside  udp  external:80 -> untouched
        outside  tcp  vip:80      -> pod-1 masq
        blocked  tcp  vip:80      -> dropped
        outside  tcp  vip-2:80    -> pod-2 masq       # TestOverallNFTablesRules: no node port
        """,
    ),
    Scenario(
        "no endpoints",
        [service("web", ports=ALL_NODE, vips=("vip",), externalIPs=["external"])],
        """
        pod-3    tcp  web:80      -> refused          # TestNoEndpointsReject
        outside  tcp  external:80 -> refused          # TestNoEndpointsReject
        pod-3    tcp  n1:30080    -> refused          # TestNoEndpointsReject
        outside  tcp  n1:30080    -> refused          # TestNoEndpointsReject
        pod-3    tcp  vip:80      -> refused          # TestNoEndpointsReject
        outside  tcp  vip:80      -> refused          # TestNoEndpointsReject
        n1       tcp  vip:80      -> refused
        n1       tcp  n1:30080    -> refused
        n1       udp  external:53 -> refused
        outside  udp  vip:53      -> refused
        outside  sctp vip:36412   -> refused
        outside  sctp n1:30412    -> refused
        pod-3    sctp external:36412 -> refused
        """,
    ),
]
