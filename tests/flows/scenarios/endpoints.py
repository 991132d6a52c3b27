"""Readiness, termination, hints, selectors, weights, hashing, families, and Services that are not served."""

from typing import Any

from netns_lab.topology import Pod, Port

from tests.flows.objects import (
    DNS,
    HTTP,
    HTTP_NODE,
    Manifest,
    Member,
    dead,
    draining,
    hinted,
    node,
    pods,
    port,
    remote,
    service,
    unready,
)
from tests.flows.scenario import ONE, Scenario, topology

FOUR = topology(pods=4)
FIVE = topology(pods=6)
ELSEWHERE = "elsewhere"


def elsewhere(member: Member) -> Member:
    """The same endpoint on another node."""
    return member._replace(node=ELSEWHERE)


def terminating(policy: str, rows: str) -> Scenario:
    """kube-proxy's four stages of a rollout, as four Services."""
    spec: dict[str, Any] = {"externalTrafficPolicy": policy}
    local = Member._replace if policy == "Local" else elsewhere
    return Scenario(
        f"terminating endpoints, externalTrafficPolicy {policy}",
        [
            service("ready", "pod-1", "pod-2", local(draining("pod-3")), local(dead("pod-4")),
                    remote("pod-5"), vips=("vip",), **spec),
            service("drain", draining("pod-2"), draining("pod-3"), local(dead("pod-4")),
                    remote("pod-5") if policy == "Local" else elsewhere(draining("pod-5")),
                    vips=("vip-2",), **spec),
            service("away", elsewhere(draining("pod-5")), vips=("external",), **spec),
            service("gone", dead("pod-5"), elsewhere(dead("pod-4")),
                    ports=[port("http", 81, 8080)], vips=("vip",), **spec),
        ],
        rows,
        topology=FIVE,
    )  # fmt: skip


def every(*zones: str) -> list[Member]:
    """Endpoints pod-1, pod-2 and so on, each with a hint for one zone."""
    return [hinted(f"pod-{n}", zones=[zone]) for n, zone in enumerate(zones, 1)]


def in_zone(zone: str) -> list[Manifest]:
    """The manifest of the node in a zone."""
    return [node("n1", FOUR, zone)]


SCENARIOS = [
    terminating(
        "Local",
        """
        pod-6    tcp  ready:80    -> pod-1 pod-2 pod-5  # TestTerminatingEndpointsTrafficPolicyLocal
        outside  tcp  vip:80      -> pod-1 pod-2        # TestTerminatingEndpointsTrafficPolicyLocal
        pod-6    tcp  drain:80    -> pod-5              # TestTerminatingEndpointsTrafficPolicyLocal
        outside  tcp  vip-2:80    -> pod-2 pod-3        # TestTerminatingEndpointsTrafficPolicyLocal
        pod-6    tcp  away:80     -> pod-5              # TestTerminatingEndpointsTrafficPolicyLocal
        outside  tcp  external:80 -> dropped            # TestTerminatingEndpointsTrafficPolicyLocal
        pod-6    tcp  gone:81     -> refused            # TestTerminatingEndpointsTrafficPolicyLocal
        outside  tcp  vip:81      -> refused            # TestTerminatingEndpointsTrafficPolicyLocal
        n1       tcp  vip-2:80    -> pod-5 masq
        pod-2    tcp  vip-2:80    -> pod-5
        """,
    ),
    terminating(
        "Cluster",
        """
        pod-6    tcp  ready:80    -> pod-1 pod-2 pod-5       # TestTerminatingEndpointsTrafficPolicyCluster
        outside  tcp  vip:80      -> pod-1 pod-2 pod-5 masq  # TestTerminatingEndpointsTrafficPolicyCluster
        pod-6    tcp  drain:80    -> pod-2 pod-3 pod-5       # TestTerminatingEndpointsTrafficPolicyCluster
        outside  tcp  vip-2:80    -> pod-2 pod-3 pod-5 masq  # TestTerminatingEndpointsTrafficPolicyCluster
        pod-6    tcp  away:80     -> pod-5                   # TestTerminatingEndpointsTrafficPolicyCluster
        outside  tcp  external:80 -> pod-5 masq              # TestTerminatingEndpointsTrafficPolicyCluster
        pod-6    tcp  gone:81     -> refused                 # TestTerminatingEndpointsTrafficPolicyCluster
        outside  tcp  vip:81      -> refused                 # TestTerminatingEndpointsTrafficPolicyCluster
        pod-2    tcp  drain:80    -> pod-2/masq pod-3 pod-5
        """,
    ),
    Scenario(
        "readiness",
        [
            service("some", "pod-1", unready("pod-2")),
            service("none", unready("pod-1"), unready("pod-2")),
            service("odd", Member("pod-1", {"ready": False, "serving": True}), "pod-2"),
            service("idle", Member("pod-1", {"ready": False, "serving": True})),
            service("late", Member("pod-1", {"ready": True, "serving": False, "terminating": True})),
            service("bare", Member("pod-2", {})),
            service("lost", Member("pod-2", node="")),
            service("here", draining("pod-1"), "pod-2", unready("pod-3"), internalTrafficPolicy="Local"),
        ],
        """
        pod-3    tcp  some:80 -> pod-1
        pod-3    tcp  none:80 -> refused
        pod-3    tcp  odd:80  -> pod-2
        pod-3    tcp  idle:80 -> refused
        pod-3    tcp  late:80 -> pod-1
        pod-3    tcp  bare:80 -> pod-2
        pod-3    tcp  lost:80 -> pod-2
        pod-2    tcp  lost:80 -> pod-2 masq
        pod-3    tcp  here:80 -> pod-2
        """,
    ),
    Scenario(
        "hints: zones",
        [
            service("fleet", *every("a", "b", "c", "a")),
            service("gap", *every("a", "b", "c"), "pod-4"),
            service("sick", *every("a", "b", "c"), hinted("pod-4", zones=["a"], ready=False)),
            service("other", *every("b", "b")),
            service("many", hinted("pod-1", zones=["a", "b"]), hinted("pod-2", zones=["b", "c"])),
            service("local", *every("b"), remote("pod-2"), externalTrafficPolicy="Local", vips=("vip",)),
            service(
                "mixed",
                hinted("pod-1", zones=["a"])._replace(node=ELSEWHERE),
                hinted("pod-2", zones=["b"]),
                internalTrafficPolicy="Local",
                vips=("vip-2",),
            ),
        ],
        """
        pod-2    tcp  fleet:80 -> pod-1 pod-4              # TestCategorizeEndpoints
        outside  tcp  fleet:80 -> pod-1 pod-4 masq
        pod-2    tcp  sick:80  -> pod-1                    # TestCategorizeEndpoints
        n1       tcp  gap:80   -> pod-1 pod-2 pod-3 pod-4 masq  # TestCategorizeEndpoints
        pod-3    tcp  other:80 -> pod-1 pod-2              # TestCategorizeEndpoints
        pod-3    tcp  many:80  -> pod-1                    # TestCategorizeEndpoints
        outside  tcp  vip:80   -> pod-1                    # TestCategorizeEndpoints: local lists ignore hints
        pod-3    tcp  mixed:80 -> pod-2                    # TestCategorizeEndpoints
        outside  tcp  vip-2:80 -> pod-1 masq               # TestCategorizeEndpoints
        """,
        topology=FOUR,
        others=in_zone("a"),
    ),
    Scenario(
        "hints: nodes",
        [
            service("near", hinted("pod-1", ["n1"], ["a"]), hinted("pod-2", ["n2"], ["a"])),
            service("zone", hinted("pod-1", ["n3"], ["a"]), hinted("pod-2", ["n2"], ["b"])),
            service("gap", hinted("pod-1", ["n1"]), "pod-2"),
            service("half", hinted("pod-1", ["n1"], ["a"]), hinted("pod-2", [], ["b"]), "pod-3"),
            service("part", hinted("pod-1", ["n1"], ["b"]), hinted("pod-2", [], ["a"])),
            service("sick", hinted("pod-1", ["n1"], ["b"], ready=False), hinted("pod-2", ["n2"], ["a"])),
        ],
        """
        pod-4    tcp  near:80 -> pod-1                     # TestCategorizeEndpoints
        pod-4    tcp  zone:80 -> pod-1                     # TestCategorizeEndpoints
        pod-4    tcp  gap:80  -> pod-1 pod-2               # TestCategorizeEndpoints
        pod-4    tcp  half:80 -> pod-1 pod-2 pod-3         # TestCategorizeEndpoints
        pod-4    tcp  part:80 -> pod-2
        pod-4    tcp  sick:80 -> pod-2
        """,
        topology=FOUR,
        others=in_zone("a"),
    ),
    Scenario(
        "hints: zones, on a node without a zone",
        [service("fleet", *every("a", "b"))],
        "pod-3 tcp fleet:80 -> pod-1 pod-2                 # TestCategorizeEndpoints",
    ),
    Scenario(
        "selectors",
        [
            service("web", selector={"app": "web"}),
            service("all", selector={"app": "web"}, publishNotReadyAddresses=True),
            service("named", selector={"app": "other"}),
            service("heavy", selector={"app": "web"}, annotations={"kproxy.io/weights": "pod-1=3"}),
        ],
        """
        pod-3    tcp  web:80   -> pod-1
        pod-3    tcp  all:80   -> pod-1 pod-2
        pod-3    tcp  named:80 -> refused
        outside  tcp  all:80   -> pod-1 pod-2 masq
        """,
        others=[*pods(ONE, "pod-1"), *pods(ONE, "pod-2", ready=False)],
    ),
    Scenario(
        "weights",
        [
            service("heavy", "pod-1", "pod-2", annotations={"kproxy.io/weights": "pod-1=3"}, vips=("vip",)),
            service("address", "pod-1", "pod-2", annotations={"kproxy.io/weights": "10.244.1.3=2"}),
            service("chosen", selector={"app": "web"}, annotations={"kproxy.io/weights": "pod-2=2"}),
        ],
        """
        pod-3    tcp  heavy:80   -> pod-1*3 pod-2
        outside  tcp  vip:80     -> pod-1*3 pod-2 masq
        pod-1    tcp  heavy:80   -> pod-1*3/masq pod-2
        pod-3    tcp  address:80 -> pod-1 pod-2*2 (4)
        pod-3    tcp  address:80 -> pod-1 pod-2 (6)
        pod-3    tcp  chosen:80  -> pod-1 pod-2*2
        """,
        others=pods(ONE, "pod-1", "pod-2"),
    ),
    Scenario(
        "consistent hashing",
        [
            service("client", "pod-1", "pod-2", "pod-3", ports=(HTTP, DNS, port("s", 9, 9, "SCTP")),
                    annotations={"kproxy.io/consistent-hash": "client"}),
            service("port", "pod-1", "pod-2", "pod-3", ports=(HTTP, DNS, port("s", 9, 9, "SCTP")),
                    annotations={"kproxy.io/consistent-hash": "client-port"}),
            service("local", "pod-1", "pod-2", remote("pod-3"), vips=("vip",), externalTrafficPolicy="Local",
                    annotations={"kproxy.io/consistent-hash": "client-port"}),
        ],
        """
        pod-4    tcp  client:80 -> hash pod-1 pod-2 pod-3
        outside  udp  client:53 -> hash pod-1 pod-2 pod-3 masq
        n1       sctp client:9  -> hash pod-1 pod-2 pod-3 masq
        pod-4    tcp  port:80   -> hash pod-1 pod-2 pod-3
        outside  tcp  port:80   -> hash pod-1 pod-2 pod-3 masq
        n1       udp  port:53   -> hash pod-1 pod-2 pod-3 masq
        pod-4    sctp port:9    -> hash pod-1 pod-2 pod-3
        outside  tcp  vip:80    -> hash pod-1 pod-2
        pod-4    tcp  vip:80    -> hash pod-1 pod-2 pod-3
        """,
        topology=FOUR,
    ),
    Scenario(
        "Services that are not served",
        [
            service("foreign", "pod-1", ports=(HTTP_NODE,), vips=("vip",), externalIPs=["external"],
                    labels={"service.kubernetes.io/service-proxy-name": "other"}),
            service("headless", "pod-1", clusterIPs=["None"]),
            service("name", type="ExternalName", externalName="example.com"),
            service("web", "pod-1"),
        ],
        """
        pod-3    tcp  foreign:80  -> dropped
        outside  tcp  vip:80      -> untouched
        outside  tcp  external:80 -> untouched
        outside  tcp  n1:30080    -> untouched
        pod-3    tcp  headless:80 -> dropped     # TestBuildServiceMapServiceHeadless
        pod-3    tcp  name:80     -> dropped     # TestBuildServiceMapServiceTypeExternalName
        pod-3    tcp  web:80      -> pod-1
        """,
    ),
    Scenario(
        "dual stack",
        [
            service("four", "pod-1", families=(4,), ipFamilyPolicy="SingleStack", ports=(HTTP_NODE,),
                    vips=("vip",)),
            service("six", "pod-2", families=(6,), ipFamilyPolicy="SingleStack"),
            service("prefer", "pod-1", ipFamilyPolicy="PreferDualStack"),
            service("require", "pod-2", families=(6, 4), ipFamilyPolicy="RequireDualStack", vips=("vip-2",)),
            service("half", selector={"app": "web"}, ipFamilyPolicy="RequireDualStack", vips=("external",)),
        ],
        """
        pod-3    tcp  four:80     -> pod-1 (4)
        pod-3    tcp  four:80     -> dropped (6)
        outside  tcp  n1:30080    -> pod-1 masq (4)
        outside  tcp  n1:30080    -> untouched (6)
        outside  tcp  vip:80      -> pod-1 masq (4)
        outside  tcp  vip:80      -> untouched (6)
        pod-3    tcp  six:80      -> dropped (4)
        pod-3    tcp  six:80      -> pod-2 (6)
        pod-3    tcp  prefer:80   -> pod-1
        outside  tcp  require:80  -> pod-2 masq
        outside  tcp  vip-2:80    -> pod-2 masq
        pod-3    tcp  half:80     -> pod-1 (4)
        pod-3    tcp  half:80     -> refused (6)
        outside  tcp  external:80 -> pod-1 masq (4)
        outside  tcp  external:80 -> refused (6)
        """,
        others=pods(ONE, "pod-1", families=(4,)),
    ),
    Scenario(
        "an endpoint in the node's own namespace",
        [
            service("web", "host", ports=[port("http", 80, 8888, node=30080)], vips=("vip",)),
            service("local", "host", ports=[port("http", 80, 8888, node=30081)], vips=("vip-2",),
                    externalTrafficPolicy="Local"),
        ],
        """
        pod-1    tcp  web:80    -> host
        outside  tcp  web:80    -> host
        outside  tcp  n1:30080  -> host
        outside  tcp  vip:80    -> host
        outside  tcp  vip-2:80  -> host
        outside  tcp  n1:30081  -> host
        pod-1    tcp  vip-2:80  -> host
        n1       tcp  web:80    -> host masq
        n1       tcp  vip:80    -> host masq
        n1       tcp  n1:30080  -> host masq
        n1       tcp  n1:30081  -> host masq
        """,
        topology=ONE.with_pod(Pod("host", "n1", ports=(Port("http", 8888),), host_network=True)),
    ),
]  # fmt: skip
