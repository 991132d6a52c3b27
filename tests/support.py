"""Shared by tests: functions that make manifests, and kproxy on a node of the lab."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal, TextIO

from netns_lab.lab import Handle, Lab
from netns_lab.probe import many
from netns_lab.topology import POD_NETWORK, Family

from kproxy.kernel.netlink.socket import Netlink
from tests import forkserver

Manifest = dict[str, Any]
EDITABLE = ("--no-table-owner",)
"""The flag of `kproxy run` with which other programs can change its tables."""
Process = forkserver.Forked | subprocess.Popen[Any]
PATIENCE = 60.0
"""Seconds until an awaited event counts as missing; more than a busy machine needs."""
FAMILIES: tuple[Family, ...] = (4, 6)
SERVICE_IP: dict[Family, str] = {4: "10.96.10.10", 6: "fd00:96::10"}
"""The ClusterIPs of the Service in most tests."""
SERVICE_CIDRS = "10.96.0.0/16,fd00:96::/112"


def service(
    name: str = "web",
    *ports: Manifest,
    families: Iterable[Family] = FAMILIES,
    cluster_ips: dict[Family, str] | None = None,
    **spec: Any,
) -> Manifest:
    """A Service in the namespace default. By default its port is 80 and its target port 8080."""
    ips = [(cluster_ips or SERVICE_IP)[family] for family in families]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "clusterIP": ips[0],
            "clusterIPs": ips,
            "ipFamilies": [f"IPv{family}" for family in families],
            "ipFamilyPolicy": "PreferDualStack" if len(ips) > 1 else "SingleStack",
            "ports": list(ports) or [{"port": 80, "targetPort": 8080}],
            **spec,
        },
    }


def sticky(timeout: int = 10800) -> Manifest:
    """The part of a spec that requests ClientIP affinity."""
    return {
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout}},
    }


def slices(
    lab: Lab, pods: Iterable[str], port: int | dict[str, int] = 8080, name: str = "web", protocol: str = "TCP"
) -> list[Manifest]:
    """EndpointSlices of a Service, one per family, with these pods of the lab."""
    members, ports = list(pods), port if isinstance(port, dict) else {"": port}
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-{family}", "labels": {"kubernetes.io/service-name": name}},
            "addressType": f"IPv{family}",
            "ports": [{"name": key, "port": number, "protocol": protocol} for key, number in ports.items()],
            "endpoints": [
                {
                    "addresses": [lab.pod(pod).address(family)],
                    "nodeName": lab.topology.pod(pod).node,
                    "conditions": {"ready": True},
                }
                for pod in members
            ],
        }
        for family in FAMILIES
    ]


CONDITIONS = {
    "ready": {"ready": True, "serving": True, "terminating": False},
    "draining": {"ready": False, "serving": True, "terminating": True},
    "down": {"ready": False, "serving": False, "terminating": True},
}
"""The conditions of an endpoint: ready, terminating but still serving, and terminating."""


def with_conditions(manifests: list[Manifest], names: Iterable[str]) -> list[Manifest]:
    """Give the endpoints of each slice the conditions with these names."""
    for manifest in manifests:
        for endpoint, name in zip(manifest["endpoints"], names, strict=True):
            endpoint["conditions"] = CONDITIONS[name]
    return manifests


def probed_pod(lab: Lab, name: str, probe: Manifest, families: Iterable[Family] = FAMILIES) -> Manifest:
    """A Pod with the label app=web and a readiness probe, whose addresses are those of a pod of the lab."""
    container = {"name": "web", "ports": [{"containerPort": 8080}], "readinessProbe": probe}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [container]},
        "status": {"podIPs": [{"ip": lab.pod(name).address(family)} for family in families]},
    }


class Kproxy:
    """kproxy on one node, with its own state directory."""

    def __init__(
        self,
        node: Handle,
        state: Path,
        cluster_cidr: bool = True,
        flags: Sequence[str] = (),
        service_cidr: bool = True,
    ) -> None:
        self.node = node
        self.state = state
        self.flags = [
            *("--node-name", node.name),
            *(("--service-cidr", SERVICE_CIDRS) if service_cidr else ()),
            *(("--cluster-cidr", ",".join(POD_NETWORK.values())) if cluster_cidr else ()),
            *flags,
        ]

    def arguments(self, verb: str, *flags: str) -> list[str]:
        """Return the arguments for a verb that reads manifests from standard input."""
        return [verb, "-f", "-", "--state-dir", str(self.state), *self.flags, *flags]

    def command(self, verb: str, *flags: str) -> list[str]:
        """Return such a command line, for programs that start it."""
        return [sys.executable, "-m", "kproxy", *self.arguments(verb, *flags)]

    def run(
        self, verb: str, *manifests: Manifest, flags: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb on these manifests, also on none. The result may be a failure."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        empty = ["--allow-empty"] if not manifests and verb in ("sync", "compile") else []
        return forkserver.run(self.node, self.arguments(verb, *flags, *empty), input=text)

    def cleanup(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run `kproxy cleanup`. The result may be a failure."""
        return forkserver.run(self.node, ["cleanup", "--state-dir", str(self.state), *flags])

    def sync(self, *manifests: Manifest, flags: Sequence[str] = ()) -> str:
        """Sync exactly these manifests, without problems or warnings. Returns the output."""
        done = self.run("sync", *manifests, flags=flags)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def nft(self, script: str) -> str:
        """Run an nft script on the node. Returns the output."""
        done = self.node.run(["nft", "-f", "-"], input=script, capture_output=True, check=True)
        return str(done.stdout)

    def ruleset(self) -> str:
        """Return all tables, without the elements that packets write: counters and affinity."""
        return self.nft("list ruleset")

    def generation(self) -> int:
        """Return the generation of the ruleset. Every commit of any program changes it."""

        def ask() -> int:
            with Netlink() as netlink:
                return netlink.generation()

        return self.node.inside(ask)


class Running:
    """`kproxy run` on a node, as a context manager, with the folder of manifests that it follows.

    With `--kubeconfig` among the flags, it follows an API server instead.
    """

    def __init__(
        self,
        node: Handle,
        folder: Path,
        flags: Sequence[str] = (),
        cluster_cidr: bool = True,
        service_cidr: bool = True,
    ) -> None:
        self.kproxy = Kproxy(node, folder / "state", cluster_cidr, service_cidr=service_cidr)
        self.manifests = folder / "manifests"
        self.manifests.mkdir(exist_ok=True)
        self.log = folder / "log"
        self.flags = flags
        self.program: Sequence[str] = ()
        """A module that runs kproxy, and its own arguments; () for kproxy itself."""

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "process") and self.process.poll() is None:
            self.stop()

    def arguments(self) -> list[str]:
        """Return the arguments of kproxy."""
        source = () if "--kubeconfig" in self.flags else ("--manifests", str(self.manifests))
        return ["run", *source, "--state-dir", str(self.kproxy.state), *self.kproxy.flags, *self.flags]

    def launch(self, log: IO[str]) -> Process:
        """Start the process, with its output in this file."""
        if not self.program:
            return forkserver.popen(self.kproxy.node, self.arguments(), stdout=log, stderr=log)
        command = [sys.executable, "-m", *self.program, *self.arguments()]
        return self.kproxy.node.popen(command, stdout=log, stderr=log, cwd=forkserver.ROOT)

    def start(self, wait: bool = True) -> None:
        """Start kproxy. With `wait`, return when it has programmed the present objects."""
        with self.log.open("a") as log:
            begun = self.log.stat().st_size
            self.process = self.launch(log)

        def runs() -> bool:
            assert self.process.poll() is None, self.logged()
            return "kproxy is ready" in self.log.read_text()[begun:]

        if wait:
            eventually(runs, self.logged)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop kproxy with a signal. Returns its exit status."""
        self.process.send_signal(number)
        return int(self.process.wait(PATIENCE))

    def write(self, name: str, *manifests: Manifest) -> None:
        """Write a file into the folder, or replace it atomically."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        (self.manifests / f".{name}").write_text(text)
        (self.manifests / f".{name}").rename(self.manifests / f"{name}.json")

    def logged(self) -> str:
        """Return the log."""
        return self.log.read_text()

    def view(self, *arguments: str) -> str:
        """Return the output of another command that asks the running kproxy."""
        done = forkserver.run(self.kproxy.node, [*arguments, "--state-dir", str(self.kproxy.state)])
        return done.stdout + done.stderr


FEW, MORE = 30, 60
"""Connections that miss one of two pods once in 2^29 times, and one of three once in 12 billion times."""


def all_pods(client: Handle, address: str, port: int) -> set[str]:
    """Return all pods that answer at an address, and the other outcomes. At most three pods may be there."""
    found = set(many(client, address, port, FEW))
    return found if len(found) == 1 else found | set(many(client, address, port, MORE))


def eventually(
    holds: Callable[[], bool], explain: Callable[[], str] = lambda: "", patience: float = PATIENCE
) -> None:
    """Wait until a condition is true. Raises AssertionError if it is false after `patience` seconds.

    A condition that takes long may begin before a change and end after it. So at the end it is asked again.
    """
    end, pause = time.monotonic() + patience, 0.001
    begun = time.monotonic()
    while not holds():
        assert begun < end, explain()
        time.sleep(pause)
        pause = min(2 * pause, 0.02)
        begun = time.monotonic()


def open_for_reader(fifo: Path) -> TextIO:
    """Open a FIFO for writing when a process has opened it for reading; AssertionError if none does."""
    opened: list[int] = []

    def has_reader() -> bool:
        with suppress(OSError):  # ENXIO: no reader yet
            opened.append(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    eventually(has_reader, lambda: f"no process reads {fifo}")
    os.set_blocking(opened[0], True)
    return os.fdopen(opened[0], "w")


Change = Literal["+", "-", "~", "!"]


def changes(output: str, kind: Change) -> list[str]:
    """Return the lines of a sync's output that begin with `kind`."""
    return [line for line in output.splitlines() if line.startswith(f"{kind} ")]
