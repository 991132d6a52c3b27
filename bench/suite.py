"""The measurements, in order: kproxy first, then the peer, each in new namespaces."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from msgspec import Struct
from netns_lab.netns import in_fresh_namespace
from rich.console import Console, RenderableType

from bench import manifests, peer
from bench.process import Run, output, run
from bench.samples import CLUSTER_CIDR, SERVICE_CIDR, Sample, one_changed, samples

ROUNDS = 3
"""The number of runs of each complete process. The result is the median."""
PEER_ROUNDS_BELOW = 5000
"""With so many Services, the peer is loaded only once: the kernel takes half a minute for it."""
PEER_CHANGES = 10
STEPS = 3 * ROUNDS + 6
"""The maximum number of messages of `measure`."""

Say = Callable[[str], None]


class Spread(Struct, frozen=True):
    """The distribution of many repetitions, in seconds."""

    median: float
    p99: float


class Held(Struct, frozen=True):
    """The size of a ruleset in the kernel."""

    rules: int
    chains: int


class Kproxy(Struct, frozen=True):
    """Seconds and bytes."""

    compile: float
    first_sync: float
    first_sync_of_yaml: float
    sync_without_change: float
    sync_of_a_change: float
    endpoint_replaced: Spread
    endpoint_added_or_removed: Spread
    peak: int
    peak_of_yaml: int
    held: Held


class Peer(Struct, frozen=True):
    """Seconds and bytes."""

    load: float
    change: float
    listing: float
    """kube-proxy 1.36 lists its table before every change."""
    peak: int
    held: Held


class Figures(Struct, frozen=True):
    """The results with one number of Services."""

    services: int
    kproxy: Kproxy
    peer: Peer


def machine() -> str:
    """Describe this machine."""
    nft = output("nft", "--version").split()[1]
    python = platform.python_version()
    return f"Linux {platform.release()}, nft {nft}, Python {python}, {os.cpu_count()} CPUs"


def publish(report: RenderableType, width: int, file: Path | None, **figures: Any) -> None:
    """Print a report, at least `width` columns wide. Write the figures and the machine to `file`, as JSON."""
    console = Console()
    console.width = max(console.width, width)
    console.print(report)
    if file:
        content = msgspec.json.encode({"machine": machine(), **figures})
        file.write_bytes(msgspec.json.format(content) + b"\n")


def measure(count: int, say: Say) -> Figures:
    """Measure everything with `count` Services."""
    with TemporaryDirectory(prefix="kproxy-bench-") as directory:
        folder = Path(directory)
        say("write the manifests")
        services = list(samples(count))
        files = Files(folder, services)
        return Figures(count, _measure_kproxy(files, say), _measure_peer(folder, services, say))


class Files:
    """The input in its three forms, and the commands that read it."""

    def __init__(self, folder: Path, services: list[Sample]) -> None:
        self.folder = folder
        content = manifests.manifests(services)
        self.json = self._write("services.json", manifests.as_json(content))
        self.yaml = self._write("services.yaml", manifests.as_yaml(content))
        middle = len(services) // 2
        services = [*services[:middle], one_changed(services[middle]), *services[middle + 1 :]]
        self.changed = self._write("changed.json", manifests.as_json(manifests.manifests(services)))

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def arguments(self, file: Path, state: str) -> list[str]:
        """Return the flags of `kproxy sync` and `kproxy compile`. `state` is the state directory."""
        return [
            *("--filename", str(file), "--state-dir", str(self.folder / state), "--node-name", "this-node"),
            *("--cluster-cidr", CLUSTER_CIDR, "--service-cidr", SERVICE_CIDR),
        ]

    def kproxy(self, verb: str, file: Path, state: str = "state") -> list[str]:
        """Return a kproxy command."""
        return [sys.executable, "-m", "kproxy", verb, *self.arguments(file, state)]


def _measure_kproxy(files: Files, say: Say) -> Kproxy:
    def first_sync(file: Path, state: str) -> Run:
        return run(*files.kproxy("sync", file, state))

    say("kproxy compile")
    run(sys.executable, "-m", "kproxy", "--version")  # creates the byte code, if it is missing
    compiles = [run(*files.kproxy("compile", files.json)).seconds for _ in range(ROUNDS)]
    first = []
    for index in range(ROUNDS - 1):
        say("kproxy sync, into an empty namespace")
        first.append(in_fresh_namespace(partial(first_sync, files.json, f"state-{index}")))
    say("kproxy sync of YAML, into an empty namespace")
    yaml = in_fresh_namespace(partial(first_sync, files.yaml, "state-yaml"))

    def later() -> Kproxy:
        say("kproxy sync, into an empty namespace")
        first.append(first_sync(files.json, "state"))
        held = _held("list", "ruleset")
        unchanged, changes = [], []
        for _ in range(ROUNDS):
            say("kproxy sync, without a change and with one changed endpoint")
            unchanged.append(run(*files.kproxy("sync", files.json)).seconds)
            for file in (files.changed, files.json):
                changes.append(run(*files.kproxy("sync", file)).seconds)
        say("one changed endpoint, in a process that keeps the state")
        arguments = files.arguments(files.json, "state")
        spreads = json.loads(output(sys.executable, "-m", "bench.change", *arguments))
        return Kproxy(
            compile=median(compiles),
            first_sync=median(run.seconds for run in first),
            first_sync_of_yaml=yaml.seconds,
            sync_without_change=median(unchanged),
            sync_of_a_change=median(changes),
            endpoint_replaced=_spread(spreads["replaced"]),
            endpoint_added_or_removed=_spread(spreads["resized"]),
            peak=max(run.peak for run in first),
            peak_of_yaml=yaml.peak,
            held=held,
        )

    return in_fresh_namespace(later)


def _measure_peer(folder: Path, services: list[Sample], say: Say) -> Peer:
    script, change = folder / "load.nft", folder / "change.nft"
    script.write_text(peer.load_script(services))
    loads = []
    if len(services) < PEER_ROUNDS_BELOW:
        for _ in range(ROUNDS - 1):
            say("nft -f, kube-proxy's form")
            loads.append(in_fresh_namespace(partial(run, "nft", "-f", str(script))))

    def later() -> Peer:
        say("nft -f, kube-proxy's form" + ("" if loads else " (takes long in the kernel)"))
        loads.append(run("nft", "-f", str(script)))
        say("nft -f, one changed Service")
        changes = []
        for index in range(PEER_CHANGES):
            service = services[index * 7919 % len(services)]
            change.write_text(peer.change_script(one_changed(service)))
            changes.append(run("nft", "-f", str(change)).seconds)
        say("nft list, kube-proxy's form")
        listing = run("nft", "-j", "-t", "list", "table", *peer.TABLE.split())
        return Peer(
            load=median(run.seconds for run in loads),
            change=median(changes),
            listing=listing.seconds,
            peak=max(run.peak for run in loads),
            held=_held("list", "table", *peer.TABLE.split()),
        )

    return in_fresh_namespace(later)


def _spread(milliseconds: list[float]) -> Spread:
    return Spread(median(milliseconds) / 1000, quantiles(milliseconds, n=100)[98] / 1000)


def _held(*listing: str) -> Held:
    """Return the size of the ruleset in this namespace, as nft lists it."""
    kinds = [next(iter(entry)) for entry in json.loads(output("nft", "-j", "-t", *listing))["nftables"]]
    return Held(kinds.count("rule"), kinds.count("chain"))
