"""A setup: a client, a node and three pods, with one ruleset on the node; and its routes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from netns_lab.lab import Handle, Lab
from netns_lab.topology import Topology, single

from bench import manifests, peer
from bench.process import Failed
from bench.samples import CLUSTER_CIDR, PORT, SERVICE_CIDR, TARGET_PORT, Endpoint, Sample, samples

CLIENT, *PODS = "pod-1", "pod-2", "pod-3", "pod-4"
NOTHING, KPROXY, PEER = "no rules", "kproxy", "kube-proxy's form"


class Setup(NamedTuple):
    """A running lab."""

    rules: str
    lab: Lab
    services: tuple[Sample, ...]

    @property
    def node(self) -> Handle:
        """The node with the rules."""
        return self.lab.node("n1")

    @property
    def client(self) -> Handle:
        """The client of all connections: a pod on the same node."""
        return self.lab.pod(CLIENT)

    @property
    def pods(self) -> list[Handle]:
        """The destinations."""
        return [self.lab.pod(name) for name in PODS]


class Route(NamedTuple):
    """A setup with destinations."""

    name: str
    setup: Setup
    one: tuple[tuple[str, int], ...]
    """Address and port of one Service, or of each pod."""
    all: tuple[tuple[str, int], ...]
    """Address and port of all Services."""


def topology() -> Topology:
    """Return a topology with pods without servers, and IPv4 only."""
    plain = single(1 + len(PODS))
    return replace(plain, pods=tuple(replace(pod, ports=()) for pod in plain.pods), clients=(), families=(4,))


@contextmanager
def make_setup(rules: str, count: int, folder: Path) -> Iterator[Setup]:
    """Create a setup with so many Services, each of which has the three pods as endpoints."""
    with Lab(topology()) as lab:
        endpoints = tuple(Endpoint(lab.pod(name).address(4), "other-node") for name in PODS)
        made = Setup(rules, lab, tuple(sample._replace(endpoints=endpoints) for sample in samples(count)))
        if rules == KPROXY:
            text = manifests.as_json(manifests.manifests(made.services))
            flags = ["--node-name", "n1", "--cluster-cidr", CLUSTER_CIDR, "--service-cidr", SERVICE_CIDR]
            state = str(folder / f"state-{count}")
            command = [sys.executable, "-m", "kproxy", "sync", "-f", "-", "--state-dir", state, *flags]
            _load(made.node, command, text)
        elif rules == PEER:
            _load(made.node, ["nft", "-f", "-"], peer.load_script(made.services))
        yield made


def _load(node: Handle, command: list[str], text: str) -> None:
    done: subprocess.CompletedProcess[str] = node.run(command, input=text, capture_output=True)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")


def routes(made: Setup) -> Iterator[Route]:
    """Yield the routes of a setup: to Services, and (with no or very many Services) directly to the pods."""
    pods = tuple((pod.address(4), TARGET_PORT) for pod in made.pods)
    if not made.services:
        yield Route(f"{made.rules}, directly to a pod", made, pods, pods)
        return
    addresses = tuple((service.address, PORT) for service in made.services)
    count = len(addresses)
    yield Route(f"{made.rules}, {count:,} Services", made, addresses[count // 2 : count // 2 + 1], addresses)
    if count > 1000:
        yield Route(f"{made.rules}, {count:,} Services, directly to a pod", made, pods, pods)
