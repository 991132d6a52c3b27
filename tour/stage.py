"""The stage of the tour: a lab with one node, hosts outside, and kproxy on the node.

`Stage.run` carries out the commands of the steps. kproxy's run on the node, and ask the kproxy that runs
there. Those of netns-lab that change pods are calls of its functions. All others are shell commands, in a
pod, in a host outside, or in the folder of the tour.
"""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from netns_lab import following
from netns_lab.documents import documents
from netns_lab.external import external_hosts
from netns_lab.lab import Handle, Lab
from netns_lab.registry import Follows
from netns_lab.topology import Client, Pod, Port, Topology, nodes_only

CHAPTER = Path(__file__).with_name("chapter")
ROOT = CHAPTER.parents[1]
NODE = "n1"
POOL = "192.168.77.100-192.168.77.119"
"""Addresses on the LAN, for the load balancer."""
HTTPBIN = Client("httpbin", v4="54.208.105.16", v6="2001:db8::2", ports=(Port("http", 80),))
"""The host to which the ExternalName leads. It also answers DNS, as a name server of the internet."""
SERVICE_CIDR = ("--service-cidr", "10.66.0.0/16")
RUN_FLAGS = (
    *("--gateway", *SERVICE_CIDR, "--cluster-cidr", "10.244.0.0/16", "--load-balancer-pool", POOL),
    *("--upstream", HTTPBIN.v4, "--node-name", NODE),
)
SERVICES = (
    "{range .items[*]}{.metadata.name}={.spec.clusterIP}={.status.loadBalancer.ingress[0].ip}{'\\n'}{end}"
)
PATIENCE = 60.0
ATTEMPT = 15.0
"""Seconds for one run of a command. A connection to a pod that has just ended would wait for minutes."""

Kproxy = Callable[[Handle, Sequence[str]], str]
"""Runs `kproxy ARGUMENTS` on a node. Returns what it prints."""


def topology() -> Topology:
    """Return a node, a client, the two hosts of external-service, which redirect to https, and httpbin."""
    found = external_hosts(manifest for _, manifest in documents([str(CHAPTER)]))
    hosts = [
        replace(host, ports=tuple(replace(port, to_https=True) for port in host.ports)) for host in found
    ]
    return replace(nodes_only(1, (*hosts, HTTPBIN)), families=(4,))


def kproxy_process(node: Handle, arguments: Sequence[str]) -> str:
    """Run kproxy as a process of its own."""
    line = [sys.executable, "-m", "kproxy", *arguments]
    return str(node.run(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout)


class Stage:
    """The running lab, and the folder of the tour. kproxy follows `services` in it."""

    def __init__(self, lab: Lab, folder: Path, kproxy: Kproxy) -> None:
        self.lab = lab
        self.folder = folder
        self._kproxy = kproxy
        self._own_flags = ("--state-dir", str(folder / "state"))
        self.names: dict[str, str] = {}
        """What stands for each {name} in the commands of the steps."""

    def set_up(self) -> None:
        """Start the pods that exist at the beginning, the host outside, and kproxy."""
        shutil.copytree(CHAPTER, self.folder / "chapter")
        (self.folder / "services").mkdir()
        for name in ("kubernetes.yaml", "kubia-rc.yaml"):
            shutil.copy(CHAPTER / name, self.folder / "services")
        arguments = ["dns", "resolv-conf", "--resolv-conf", "/dev/null", *SERVICE_CIDR]
        (self.folder / "resolv.conf").write_text(self._kproxy(self.lab.node(NODE), arguments))
        following.follow(self.lab, self._follows())
        world = [sys.executable, "-m", "tour.world", "httpbin.org", HTTPBIN.v4]
        self.lab.client("httpbin").popen(world, cwd=ROOT)
        self._start()
        self.learn()

    def run(self, host: str, command: str) -> str:
        """Run the command of a step on a host; "" for the folder of the tour. Returns what it prints."""
        if host:
            return _shell(self._handle(host).run, command)
        first, _, filter_ = command.partition(" | ")
        program, *words = shlex.split(first)
        if program == "kproxy":
            printed = self.ask(words)
            return _shell(subprocess.run, filter_, input=printed) if filter_ else printed
        if program == "netns-lab":
            return "\n".join(self._change_pods(words))
        return _shell(subprocess.run, command, cwd=self.folder)

    def ask(self, arguments: Sequence[str]) -> str:
        """Run kproxy, with the state directory of the one that runs. Returns what it prints."""
        return self._kproxy(self.lab.node(NODE), [*arguments, *self._own_flags])

    def learn(self) -> None:
        """Take note of what later commands name: addresses of Services and the node, names of pods."""
        printed = self.ask(["get", "svc", "-o", f"jsonpath={SERVICES}"])
        for name, cluster_ip, external in re.findall(r"(?m)^([\w-]+)=([\w.]*)=([\w.]*)$", printed):
            self.names |= {name: cluster_ip} | ({f"{name}-external": external} if external else {})
        self.names |= {f"pod{number}": pod.name for number, pod in enumerate(self.kubia(), start=1)}
        self.names["node"] = self.lab.node(NODE).address(4)

    def kubia(self) -> list[Pod]:
        """Return the kubia pods, the oldest first."""
        return [pod for pod in self.lab.topology.pods if pod.labels.get("app") == "kubia"]

    def log(self) -> str:
        """Return what the running kproxy has logged."""
        return (self.folder / "log").read_text()

    def _start(self) -> None:
        lab = self.lab.id
        enter = f"nsenter --net=/run/netns/nl-{lab}-{{pod}} --mount=/run/netns-lab/{lab}/{{pod}} --"
        manifests = ["-f", str(self.folder / "services"), "-f", str(self.lab.record.objects())]
        line = [sys.executable, "-m", "kproxy", "run", *manifests, *RUN_FLAGS, *self._own_flags]
        with (self.folder / "log").open("w") as log:
            self.lab.node(NODE).popen([*line, "--probe-exec", enter], stdout=log, stderr=log, cwd=ROOT)
        end = time.monotonic() + PATIENCE
        while "kproxy is ready" not in self.log():
            if time.monotonic() > end:
                raise TimeoutError(f"kproxy does not start:\n{self.log()}")
            time.sleep(0.05)

    def _follows(self) -> Follows:
        """Return what the lab follows, and the commands for the variables and the resolv.conf of its pods."""
        services = str(self.folder / "services")
        flags = ["-f", services, "-f", "-", "--format", "docker", *SERVICE_CIDR, *self._own_flags]
        environment = f"{sys.executable} -m kproxy env {{pod}} {shlex.join(flags)}"
        return Follows((services,), str(ROOT), environment, f"cat {self.folder}/resolv.conf")

    def _change_pods(self, words: list[str]) -> list[str]:
        match words:
            case ["apply"]:
                return following.apply(self.lab)
            case ["scale", what, number]:
                return following.scale(self.lab, what, int(number))
            case ["delete", "pod", *names]:
                return following.delete(self.lab, names)
        raise ValueError(f"the tour does not know: netns-lab {shlex.join(words)}")

    def _handle(self, host: str) -> Handle:
        is_client = any(client.name == host for client in self.lab.topology.clients)
        return self.lab.client(host) if is_client else self.lab.pod(host)


def _shell(run: Callable[..., subprocess.CompletedProcess[Any]], command: str, **options: Any) -> str:
    """Run a shell command with `subprocess.run` or the method of a host. Returns both outputs."""
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    try:
        return str(run(["sh", "-c", command], text=True, timeout=ATTEMPT, **outputs, **options).stdout)
    except subprocess.TimeoutExpired:
        return f"(no end after {ATTEMPT:g} s)"


@contextmanager
def staged(folder: Path, kproxy: Kproxy = kproxy_process) -> Iterator[Stage]:
    """Start the lab and everything in it. At the end, it is removed."""
    with Lab(topology()) as lab:
        stage = Stage(lab, folder, kproxy)
        stage.set_up()
        yield stage
