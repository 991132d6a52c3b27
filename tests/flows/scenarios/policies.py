"""Traffic policies Cluster and Local, internal and external, and the clients that they do not affect."""

from typing import Any

from tests.flows.objects import ALL_NODE, port, remote, service
from tests.flows.scenario import TWO, Scenario, topology

LOCAL: dict[str, Any] = {"externalTrafficPolicy": "Local"}
INSIDE: dict[str, Any] = {"internalTrafficPolicy": "Local"}

EXTERNAL = """
    pod-3    tcp  web:80      -> pod-1 pod-2              # TestExternalTrafficPolicy{policy}
    pod-3    tcp  external:80 -> pod-1 pod-2 {replaced}   # TestExternalTrafficPolicy{policy}
    outside  tcp  external:80 -> {here} {replaced}        # TestExternalTrafficPolicy{policy}
    pod-3    tcp  vip:80      -> pod-1 pod-2 {replaced}   # TestExternalTrafficPolicy{policy}
    outside  tcp  vip:80      -> {here} {replaced}        # TestExternalTrafficPolicy{policy}
    pod-3    tcp  n1:30080    -> pod-1 pod-2 {replaced}   # TestExternalTrafficPolicy{policy}
    outside  tcp  n1:30080    -> {here} {replaced}        # TestExternalTrafficPolicy{policy}
    outside  udp  vip:53      -> {here} {replaced}
    outside  sctp n1:30412    -> {here} {replaced}
    n1       tcp  vip:80      -> pod-1 pod-2 masq
    n1       udp  n1:30053    -> pod-1 pod-2 masq
    pod-2    tcp  vip:80      -> pod-1{each} pod-2/masq
    pod-2    tcp  n1:30080    -> pod-1{each} pod-2/masq
    outside  tcp  web:80      -> pod-1 pod-2 masq
"""

MASQUERADE = """
    pod-3    tcp  all:80      -> pod-1 pod-2 {pod}        # TestInternalExternalMasquerade
    pod-3    tcp  n1:30001    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    pod-3    tcp  vip:80      -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    n1       tcp  all:80      -> pod-1 pod-2 {other}      # TestInternalExternalMasquerade
    n1       tcp  n1:30001    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    n1       tcp  vip:80      -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    outside  tcp  all:80      -> pod-1 pod-2 {other}      # TestInternalExternalMasquerade
    outside  tcp  n1:30001    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    outside  tcp  vip:80      -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    pod-3    tcp  ext:80      -> pod-1 pod-2 {pod}        # TestInternalExternalMasquerade
    pod-3    tcp  n1:30002    -> {short}                  # TestInternalExternalMasquerade
    pod-3    tcp  vip-2:80    -> {short}                  # TestInternalExternalMasquerade
    n1       tcp  ext:80      -> pod-1 pod-2 {other}      # TestInternalExternalMasquerade
    n1       tcp  n1:30002    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    n1       tcp  vip-2:80    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    outside  tcp  ext:80      -> pod-1 pod-2 {other}      # TestInternalExternalMasquerade
    outside  tcp  n1:30002    -> pod-1                    # TestInternalExternalMasquerade
    outside  tcp  vip-2:80    -> pod-1                    # TestInternalExternalMasquerade
    pod-3    tcp  int:80      -> pod-1 {pod}              # TestInternalExternalMasquerade
    pod-3    tcp  n1:30003    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    pod-3    tcp  external:80 -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    n1       tcp  int:80      -> pod-1 {other}            # TestInternalExternalMasquerade
    n1       tcp  n1:30003    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    n1       tcp  external:80 -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    outside  tcp  int:80      -> pod-1 {other}            # TestInternalExternalMasquerade
    outside  tcp  n1:30003    -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
    outside  tcp  external:80 -> pod-1 pod-2 masq         # TestInternalExternalMasquerade
"""


def external(policy: str, **columns: str) -> Scenario:
    """kube-proxy's Service with a local and a remote endpoint, for one external policy."""
    web = service(
        "web",
        remote("pod-1"),
        "pod-2",
        ports=ALL_NODE,
        vips=("vip",),
        externalIPs=["external"],
        externalTrafficPolicy=policy,
    )
    return Scenario(f"externalTrafficPolicy {policy}", [web], EXTERNAL.format(policy=policy, **columns))


def masquerade(name: str, flags: str, cluster_cidr: bool, **columns: str) -> Scenario:
    """kube-proxy's three Services, one for each policy, with one set of masquerading flags."""
    members = ("pod-1", remote("pod-2"))
    return Scenario(
        f"masquerading, {name}",
        [
            service("all", *members, ports=[port("p", 80, 8080, node=30001)], vips=("vip",)),
            service("ext", *members, ports=[port("p", 80, 8080, node=30002)], vips=("vip-2",), **LOCAL),
            service("int", *members, ports=[port("p", 80, 8080, node=30003)], vips=("external",), **INSIDE),
        ],
        MASQUERADE.format(**columns),
        flags=flags,
        cluster_cidr=cluster_cidr,
    )


BOTH, HERE = "pod-1 pod-2", "pod-1"

SCENARIOS = [
    external("Cluster", here="pod-1 pod-2", replaced="masq", each="/masq"),
    external("Local", here="pod-2", replaced="", each=""),
    masquerade("by cluster CIDR", "", True, pod="", other="masq", short=BOTH),
    masquerade("pods unknown", "", False, pod="", other="", short=HERE),
    masquerade("all", "--masquerade-all", True, pod="masq", other="masq", short=BOTH),
    masquerade("all, pods unknown", "--masquerade-all", False, pod="masq", other="masq", short=HERE),
    Scenario(
        "externalTrafficPolicy Local, all endpoints on other nodes",
        [service("web", remote("pod-1"), ports=ALL_NODE, vips=("vip",), externalIPs=["external"], **LOCAL)],
        """
        outside  tcp  vip:80      -> dropped              # TestOverallNFTablesRules
        outside  tcp  external:80 -> dropped              # TestOverallNFTablesRules
        outside  tcp  n1:30080    -> dropped              # TestOverallNFTablesRules
        outside  udp  vip:53      -> dropped
        outside  sctp vip:36412   -> dropped
        pod-3    tcp  vip:80      -> pod-1
        pod-3    udp  n1:30053    -> pod-1
        n1       tcp  vip:80      -> pod-1 masq
        n1       sctp n1:30412    -> pod-1 masq
        outside  tcp  web:80      -> pod-1 masq
        pod-3    tcp  web:80      -> pod-1
        """,
    ),
    Scenario(
        "internalTrafficPolicy Local",
        [
            service("one", "pod-1", remote("pod-2"), remote("pod-3"), **INSIDE),
            service("two", "pod-1", "pod-2", remote("pod-3"), **INSIDE),
            service("three", "pod-1", remote("pod-2"), remote("pod-3")),
            service("none", remote("pod-2"), vips=("vip",), **INSIDE),
            service("empty", **INSIDE),
            service("both", "pod-1", remote("pod-2"), vips=("vip-2",), **LOCAL, **INSIDE),
        ],
        """
        pod-4    tcp  three:80  -> pod-1 pod-2 pod-3  # TestInternalTrafficPolicy, Cluster
        pod-4    tcp  one:80    -> pod-1                   # TestInternalTrafficPolicy
        pod-4    tcp  two:80    -> pod-1 pod-2             # TestInternalTrafficPolicy
        pod-4    tcp  none:80   -> dropped                 # TestInternalTrafficPolicy
        pod-4    tcp  empty:80  -> refused                 # TestInternalTrafficPolicy
        n1       tcp  one:80    -> pod-1 masq
        outside  tcp  one:80    -> pod-1 masq
        pod-1    tcp  one:80    -> pod-1 masq
        n1       tcp  none:80   -> dropped
        outside  tcp  none:80   -> dropped
        outside  tcp  vip:80    -> pod-2 masq
        pod-4    tcp  vip:80    -> pod-2 masq
        outside  tcp  vip-2:80  -> pod-1
        pod-4    tcp  vip-2:80  -> pod-1 pod-2
        n1       tcp  vip-2:80  -> pod-1 pod-2 masq
        pod-4    tcp  both:80   -> pod-1
        """,
        topology=topology(pods=4),
    ),
    Scenario(
        "externalTrafficPolicy Local on two nodes",
        [service("web", "n1-pod-1", ports=ALL_NODE, type="NodePort", **LOCAL)],
        """
        outside  tcp  n1:30080  -> n1-pod-1
        outside  tcp  n2:30080  -> dropped
        n1-pod-2 tcp  n1:30080  -> n1-pod-1
        n2       tcp  n2:30080  -> n1-pod-1 masq
        n2-pod-1 tcp  n1:30080  -> n1-pod-1
        n1       tcp  n1:30080  -> n1-pod-1 masq
        n2-pod-2 tcp  web:80    -> n1-pod-1
        n1       tcp  n2:30080  -> dropped
        n1-pod-1 tcp  n2:30080  -> n1-pod-1 masq    # to itself, through the other node
        n2-pod-1 udp  n1:30053  -> n1-pod-1
        """,
        topology=TWO,
    ),
]
