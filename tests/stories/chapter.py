"""The cluster of the book chapter in a lab: nodes and pods with their addresses, and the manifests.

The folder `chapter` has the manifests as the chapter prints them, with the ClusterIPs that its cluster
allocated. Pods 10.0.0.x are on node n1, 10.0.1.x on n2, 10.0.2.x on n3.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from netns_lab.lab import Handle, Lab
from netns_lab.manifests import as_list, pod_manifests
from netns_lab.probe import Reply, http_get
from netns_lab.surroundings import parse
from netns_lab.topology import KUBIA, OUTSIDE, Client, Pod, Port, Topology, lab_node

from tests import forkserver
from tests.support import Manifest

MANIFESTS = Path(__file__).with_name("chapter")
SERVICE_CIDR = "10.66.0.0/16"
POD_CIDR = "10.0.0.0/16"
KUBIA_IP = "10.66.13.240"


def kubia(
    name: str, address: str, app: str = "kubia", ports: tuple[Port, ...] = KUBIA, localhost_only: bool = False
) -> Pod:
    """Return a kubia pod, on the node of its address."""
    node = int(address.split(".")[2]) + 1
    return Pod(name, f"n{node}", v4=address, labels={"app": app}, ports=ports, localhost_only=localhost_only)


PODS = (
    kubia("kubia-4bv25", "10.0.1.23"),
    kubia("kubia-7sd67", "10.0.2.13"),
    kubia("kubia-zhg6k", "10.0.2.14"),
)
"""The pods in the first half of the chapter."""


def cluster(*pods: Pod, nodes: int = 3, clients: tuple[Client, ...] = (OUTSIDE,)) -> Topology:
    """Return a topology of nodes, these pods and external clients. IPv4 only, as in the chapter."""
    return Topology(
        nodes=tuple(replace(lab_node(n), pod_cidr_v4=f"10.0.{n - 1}.0/24") for n in range(1, nodes + 1)),
        pods=pods,
        clients=clients,
        families=(4,),
    )


class Chapter:
    """kproxy on the nodes of the cluster, with some of the chapter's files and the lab's pods."""

    def __init__(self, lab: Lab, state: Path, files: Sequence[str]) -> None:
        self.lab = lab
        self.state = state
        self.files = list(files)
        self.unready: Sequence[str] = ()
        self.warning = ""
        """The expected message of a sync on standard error."""

    def start(self, pod: Pod) -> Handle:
        """Start a pod as a kubelet does: with the variables of the existing Services."""
        pods = pod_manifests(self.lab.topology.with_pod(pod))
        return self.lab.add_pod(pod, parse(self._run("n1", pods, "env", pod.name, "--format", "docker")))

    def sync(self) -> str:
        """Program every node. Returns kproxy's output on the first one."""

        def sync(node: str) -> str:
            return self._run(node, self._pods(), "sync", "--node-name", node, "--cluster-cidr", POD_CIDR)

        with ThreadPoolExecutor() as pool:
            return next(pool.map(sync, [node.name for node in self.lab.topology.nodes]))

    def get(self, *what: str) -> str:
        """Return the output of `kproxy get`."""
        return self._run("n1", self._pods(), "get", *what)

    def describe(self, *what: str) -> str:
        """Return the output of `kproxy describe` on the first node."""
        return self._run("n1", self._pods(), "describe", *what, "--node-name", "n1")

    def curl(self, host: Handle, address: str, port: int, timeout: float = 10) -> str:
        """Return the answer, or the name of the outcome if there is none."""
        reply = self.ask(host, address, port, timeout)
        return reply.body.rstrip("\n") or str(reply.outcome)

    def ask(self, host: Handle, address: str, port: int, timeout: float = 10) -> Reply:
        return http_get(host, address, port, timeout)

    def _pods(self) -> list[Manifest]:
        pods = pod_manifests(self.lab.topology)
        for pod in pods:
            if pod["metadata"]["name"] in self.unready:
                pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
        return pods

    def _run(self, node: str, pods: list[Manifest], verb: str, *arguments: str) -> str:
        line = [
            *(verb, *arguments, "-f", "-"),
            *(part for file in self.files for part in ("-f", str(MANIFESTS / file))),
            *("--state-dir", str(self.state / node), "--service-cidr", SERVICE_CIDR),
        ]
        done = forkserver.run(self.lab.node(node), line, input=json.dumps(as_list(pods)))
        warning = self.warning if verb == "sync" else ""
        assert (done.returncode, done.stderr.partition("Service default/")[2]) == (0, warning), done.stderr
        return done.stdout


@contextmanager
def chapter(
    topology: Topology, state: Path, *files: str, unready: Sequence[str] = (), warning: str = ""
) -> Iterator[Chapter]:
    """Start the cluster, with the nodes programmed from these files of the chapter.

    All pods but `unready` are ready. `warning` is the expected message of each sync after `Service default/`.
    """
    with Lab(topology) as lab:
        of = Chapter(lab, state, files)
        of.unready, of.warning = unready, warning
        of.sync()
        yield of


def without_age(table: str) -> list[list[str]]:
    """Return the rows of a table of `get` without the column AGE, because files have no age."""
    return [line.split()[:-1] for line in table.splitlines() if line]


def endpoints(table: str) -> set[str]:
    """Return the endpoints in a table of `get endpoints` that has one row and is not abbreviated."""
    _, (_, sockets) = without_age(table)
    return set(sockets.split(","))


def lines_of(text: str) -> list[str]:
    """Return the lines of a description, with single blanks between columns."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def differences(transcript: str, shown: str) -> list[str]:
    """Return the lines of the chapter's transcript that are not shown, or not in the same order."""
    missing, rest = [], lines_of(shown)
    for line in lines_of(transcript):
        if line in rest:
            rest = rest[rest.index(line) + 1 :]
        else:
            missing.append(line)
    return missing
