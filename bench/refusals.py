"""`python -m bench.refusals`: the cost of a refused connection, and of reading the counters of refusals.

With `--against DIR`, rules of another version of kproxy are measured in turn, so other work of the machine
affects both equally. DIR is its source folder, for example a git worktree.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from netns_lab.lab import Handle, Lab

from bench import manifests
from bench.arguments import Arguments
from bench.process import Failed, exits_with_status
from bench.samples import CLUSTER_CIDR, PORT, SERVICE_CIDR, Sample, samples
from bench.traffic.measures import seconds_to_send
from bench.traffic.packets import syns
from bench.traffic.setups import CLIENT, topology
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.observe.refused import AT_ONCE, RefusedCounters
from kproxy.reconcile.dataplane import Dataplane
from kproxy.table.skeleton import Options

ROOT = Path(__file__).parents[1]
SERVICES, PACKETS, ROUNDS, READINGS = 10_000, 10_000, 15, 20
UNKNOWN_PORT = PORT + 1


@contextmanager
def node_without_endpoints(source: Path, services: Sequence[Sample], folder: Path) -> Iterator[Lab]:
    """Create a lab whose node has these Services, programmed by the kproxy in a source folder."""
    with Lab(topology()) as lab:
        text = manifests.as_json(manifests.manifests(services))
        flags = ["--node-name", "n1", "--cluster-cidr", CLUSTER_CIDR, "--service-cidr", SERVICE_CIDR]
        state = ["--state-dir", str(folder / source.name)]
        command = [sys.executable, "-m", "kproxy", "sync", "-f", "-", *state, *flags]
        done: subprocess.CompletedProcess[str] = lab.node("n1").run(
            command, input=text, capture_output=True, cwd=source
        )
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
        yield lab


def refusal(client: Handle, address: str, places: Sequence[tuple[str, int]]) -> float:
    """Return the seconds from a SYN until the node's reset arrives (bench/traffic/measures.py)."""
    prepared = [(packet, (at, 0)) for packet, at in syns(address, places, PACKETS)]
    return client.inside(partial(seconds_to_send, prepared))


def compare(labs: Sequence[Lab], services: Sequence[Sample], rounds: int, port: int) -> list[list[float]]:
    """Return the seconds of a refusal in each lab, one value for each round. The first round warms up."""
    places = [(service.address, port) for service in services]
    values = [
        [refusal(lab.pod(CLIENT), lab.pod(CLIENT).address(4), places) for lab in labs]
        for _ in range(rounds + 1)
    ]
    return [list(own) for own in zip(*values[1:], strict=True)]


def readings(node: Handle) -> list[float]:
    """Return the CPU seconds of readings of all counters of refusals of a node."""

    def read() -> list[float]:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, Family.IPV4, Options())
            dataplane.read()
            counters, found = RefusedCounters({Family.IPV4: dataplane}), []
            for _ in range(READINGS):
                counters.read()
                found.append(counters.seconds)
            return found

    return node.inside(read)


def show(what: str, values: Sequence[Sequence[float]]) -> None:
    """Print the medians, and the median of the ratios to the first source within a round."""
    ratios = [median(v / first for v, first in zip(each, values[0], strict=True)) for each in values]
    cells = [f"{median(v) * 1e6:.2f} µs, x {ratio:.3f}" for v, ratio in zip(values, ratios, strict=True)]
    print(f"{what}: {'; '.join(cells)}")


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.refusals", __doc__)
    parser.number("--rounds", ROUNDS)
    parser.number("--services", SERVICES)
    parser.against()
    arguments = parser.parsed_by_root()
    services = [sample._replace(endpoints=()) for sample in samples(arguments.services)]
    sources = [*([arguments.against.resolve()] if arguments.against else []), ROOT]
    with exits_with_status(), TemporaryDirectory(prefix="kproxy-bench-") as folder, ExitStack() as up:
        labs = [up.enter_context(node_without_endpoints(s, services, Path(folder))) for s in sources]
        show("no endpoint", compare(labs, services, arguments.rounds, PORT))
        show("a port that no Service has", compare(labs, services[:10], arguments.rounds, UNKNOWN_PORT))
        read = median(readings(labs[-1].node("n1")))
    count = len(services)
    print(f"a reading of {count:,} frontends without endpoints: {read * 1e3:.1f} ms of CPU", end="")
    print(f", {read / count * AT_ONCE * 1e3:.2f} ms for {AT_ONCE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
