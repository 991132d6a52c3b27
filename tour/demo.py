"""`make demo`: the Services of the book chapter in a lab on this machine, with a report of the packets.

The lab has a node, three kubia pods, a client pod, an external client, and two web servers with the endpoint
addresses of external-service. `kproxy sync` programs the chapter's manifests on the node, and the load
balancer gets an address on the LAN. Then packets test each claim. At the end, `kproxy run` takes over, probes
the pods, and sends clients to the ready ones.

The exit status is 1 if a result differs from the chapter's.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import netns_lab
from netns_lab.lab import Lab
from netns_lab.manifests import as_list, pod_manifests
from netns_lab.probe import Outcome, echo, http_get, many
from netns_lab.surroundings import parse
from netns_lab.topology import POD_NETWORK, Client, Port, Topology, chapter, lab_pod
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

MANIFESTS = Path(netns_lab.__file__).with_name("chapter")
SERVICE_CIDRS = "10.66.0.0/16,fd00:10:66::/112"
NODE_PORT = 30123
POOL = "192.168.77.100-192.168.77.119"
"""Addresses on the LAN, so that all hosts there can reach the load balancer."""
REQUESTS = 300
CLUSTER_CIDR = ("--cluster-cidr", ",".join(POD_NETWORK.values()))
PROBE = {"exec": {"command": ["ls", "/var/ready"]}, "periodSeconds": 1, "failureThreshold": 1}
EXTERNAL = ("13.250.94.254", "13.229.188.59")


@dataclass
class Check:
    """A claim of the chapter, and the observed result."""

    claim: str
    seen: str
    holds: bool


def topology() -> Topology:
    """Return the chapter's cluster, and two hosts with the endpoint addresses of the external Service."""
    cluster = chapter()
    external = (
        Client(f"external-{number}", v4=address, v6=f"fd77::20{number}", ports=(Port("http", 80),))
        for number, address in enumerate(EXTERNAL, start=1)
    )
    return replace(cluster, clients=(*cluster.clients, *external))


class Demo:
    """The steps of the demo, in order."""

    def __init__(self, lab: Lab, state: str) -> None:
        self.lab = lab
        self.state = state
        self.synced = ""
        self.seconds = 0.0
        self.histogram: Counter[str] = Counter()
        self.checks: list[Check] = []
        self.addresses: dict[str, str] = {}

    def command(self, *words: str) -> list[str]:
        """Return a kproxy command line, with the flags that all verbs have."""
        kproxy = (sys.executable, "-m", "kproxy", *words, "--state-dir", self.state, "--node-name", "n1")
        return [*kproxy, "--service-cidr", SERVICE_CIDRS, "--load-balancer-pool", POOL]

    def kproxy(self, *words: str, pods: Topology | None = None) -> str:
        """Run kproxy on the node with the chapter's manifests and the lab's pods. Returns its output."""
        command = self.command(*words, "-f", str(MANIFESTS), "-f", "-")
        manifests = json.dumps(as_list(pod_manifests(pods or self.lab.topology)))
        done = self.lab.node("n1").run(command, input=manifests, stdout=subprocess.PIPE)
        if done.returncode:
            raise SystemExit(f"kproxy {words[0]} failed with status {done.returncode}")
        return str(done.stdout)

    def check(self, claim: str, seen: object, holds: bool) -> None:
        self.checks.append(Check(claim, str(seen), holds))

    def sync(self) -> None:
        start = time.monotonic()
        self.synced = self.kproxy("sync", *CLUSTER_CIDR)
        self.seconds = time.monotonic() - start
        for line in self.synced.splitlines():
            if line.startswith("+ address "):
                self.addresses["external"] = line.split()[2]
            elif line.startswith("+ "):
                _, owner, frontend, *_ = line.split()
                address = frontend.rpartition(":")[0].strip("[]")
                self.addresses.setdefault(f"{owner}{' v6' if ':' in address else ''}", address)

    def spread(self) -> None:
        node = self.lab.node("n1").address(4)
        self.histogram = many(self.lab.client("outside"), node, NODE_PORT, REQUESTS)
        kubia = {pod.name for pod in self.lab.topology.pods if pod.labels.get("app") == "kubia"}
        self.check(
            f"{REQUESTS} requests to the node port {NODE_PORT} reach all three pods",
            " + ".join(str(count) for _, count in sorted(self.histogram.items())),
            set(self.histogram) == kubia,
        )

    def ports(self) -> None:
        client = self.lab.pod("client")
        for name, port, text in (("http-default", 80, "default mux"), ("http-mux1", 90, "mux1")):
            address = self.addresses[f"default/kubia:{name}"]
            reply = http_get(client, address, port)
            self.check(
                f"curl {address}:{port} from a pod",
                reply.body.strip() or reply.outcome,
                reply.body.strip().endswith(f"on {text}"),
            )

    def affinity(self) -> None:
        for version, suffix in (("IPv4", ""), ("IPv6", " v6")):
            address = self.addresses[f"default/kubia:http-default{suffix}"]
            seen = many(self.lab.pod("client"), address, 80, 50, concurrency=1)
            self.check(
                f"50 requests of one client to kubia reach one pod ({version})",
                _tally(seen),
                len(seen) == 1,
            )

    def external(self) -> None:
        address = self.addresses["default/external-service"]
        seen = many(self.lab.pod("client"), address, 80, 30)
        self.check(
            f"external-service ({address}) leads to its two Endpoints",
            _tally(seen),
            set(seen) == {"external-1", "external-2"},
        )

    def node_port(self) -> None:
        for family in self.lab.topology.families:
            address = self.lab.node("n1").address(family)
            reply = http_get(self.lab.client("outside"), address, NODE_PORT)
            shown = f"[{address}]" if family == 6 else address
            self.check(
                f"curl {shown}:{NODE_PORT} from outside",
                reply.body.strip() or reply.outcome,
                reply.outcome is Outcome.ANSWERED,
            )

    def load_balancer(self) -> None:
        client, address = self.lab.client("outside"), self.addresses["external"]
        answered = echo(client, address)
        self.check(
            f"ping {address}, the load balancer, from outside",
            "answered" if answered else "no answer",
            answered,
        )
        reply = http_get(client, address, 80)
        self.check(
            f"curl {address} from outside",
            reply.body.strip() or reply.outcome,
            reply.body.strip() == f"You've hit {reply.pod} on default mux",
        )

    def silence(self) -> None:
        for name in ("default/kubia:http-default", "default/kubia:http-default v6"):
            answered = any(echo(self.lab.pod("client"), self.addresses[name], timeout=0.5) for _ in range(2))
            self.check(f"ping {self.addresses[name]}", "answered" if answered else "no answer", not answered)

    def again(self) -> None:
        last = self.kproxy("sync", *CLUSTER_CIDR).splitlines()[-1]
        self.check(
            "a second sync changes nothing", last.rpartition(": ")[2], last.endswith("nothing to change")
        )

    def environment(self) -> None:
        pod = lab_pod("late", 1, 20, {"app": "late"})
        printed = self.kproxy("env", pod.name, "--format", "docker", pods=self.lab.topology.with_pod(pod))
        started = self.lab.add_pod(pod, parse(printed))
        seen = started.run(["printenv", "KUBIA_SERVICE_HOST"], stdout=subprocess.PIPE).stdout.strip()
        self.check(
            "a pod that starts later has KUBIA_SERVICE_HOST",
            seen,
            seen == self.addresses["default/kubia:http-default"],
        )

    def readiness(self) -> None:
        """Start the daemon after the sync. Its pods have the probe `ls /var/ready`."""
        node, outside = self.lab.node("n1"), self.lab.client("outside")
        folder = Path(self.state) / "manifests"
        shutil.copytree(MANIFESTS, folder)
        pods = pod_manifests(self.lab.topology)
        for pod in pods:
            pod["spec"]["containers"][0]["readinessProbe"] = PROBE
            del pod["status"]["conditions"]
        (folder / "pods.json").write_text(json.dumps(as_list(pods)))
        lab = self.lab.id
        runner = f"nsenter --net=/run/netns/nl-{lab}-{{pod}} --mount=/run/netns-lab/{lab}/{{pod}} --"
        command = self.command("run", "--manifests", str(folder), "--probe-exec", runner, *CLUSTER_CIDR)
        with (Path(self.state) / "log").open("w") as log:
            daemon = node.popen(command, stderr=log)
        refused = until(lambda: http_get(outside, node.address(4), NODE_PORT).outcome is Outcome.REFUSED)
        seen_first = "refused" if refused else "answered"
        self.check("kproxy run: without a ready pod, the node port refuses", seen_first, refused)
        ready = "kubia-zhg6k"
        self.lab.pod(ready).run(["touch", "/var/ready"], check=True)
        until(lambda: http_get(outside, node.address(4), NODE_PORT).outcome is Outcome.ANSWERED)
        seen = many(outside, node.address(4), NODE_PORT, 30)
        self.check(f"touch /var/ready in {ready}: all traffic goes there", _tally(seen), set(seen) == {ready})
        daemon.terminate()
        daemon.wait()


def until(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until a condition holds, for at most `seconds`. Returns whether it holds."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.1)
    return held


def _tally(seen: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(seen.items()))


@contextmanager
def progress(console: Console, steps: int) -> Iterator[Callable[[str], None]]:
    """Show a line with the present step on a terminal, and remove it at the end."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed}/{task.total} {task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as display:
        task = display.add_task("", total=steps)

        def say(text: str) -> None:
            if not console.is_terminal:
                console.print(f"... {text}")
            display.update(task, description=text, advance=1)

        yield say


def report(console: Console, demo: Demo) -> None:
    """Print the results."""
    console.print(f"\n[bold]kproxy sync[/] ({demo.seconds:.2f} s)")
    console.print(demo.synced.rstrip(), highlight=False, markup=False)
    console.print(f"\n[bold]Answers to {REQUESTS} requests to node port {NODE_PORT}[/]")
    for name, count in sorted(demo.histogram.items()):
        console.print(f"  {name:<14}{count:>4} {'█' * round(count / 4)}", highlight=False)
    table = Table(
        title="\nThe chapter's claims, tested with packets",
        title_justify="left",
        title_style="bold",
        box=None,
    )
    for title in ("", "claim", "result"):
        table.add_column(title)
    for check in demo.checks:
        table.add_row(
            "[green]yes[/]" if check.holds else "[red]NO[/]", escape(check.claim), escape(check.seen)
        )
    console.print(table)


def main() -> int:
    """Run the demo. Returns the exit status."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory() as state, progress(console, 12) as say:
        say("start a node, three pods and two clients in network namespaces")
        with Lab(topology()) as lab:
            demo = Demo(lab, state)
            for text, step in (
                ("kproxy sync -f chapter/", demo.sync),
                (f"{REQUESTS} requests from outside", demo.spread),
                ("both ports of kubia from a pod", demo.ports),
                ("session affinity: one client", demo.affinity),
                ("the external service", demo.external),
                ("the node port, from outside", demo.node_port),
                ("the load balancer, from outside", demo.load_balancer),
                ("ping a ClusterIP", demo.silence),
                ("kproxy sync again", demo.again),
                ("another pod, with the variables of the Services", demo.environment),
                ("kproxy run, and readiness", demo.readiness),
            ):
                say(text)
                step()
    report(console, demo)
    failed = [check for check in demo.checks if not check.holds]
    console.print(f"\n{len(demo.checks) - len(failed)} of {len(demo.checks)} results agree with the chapter.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
