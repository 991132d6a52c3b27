"""`python -m bench.dns`: ask servers, replace endpoints, and print the tables of kproxy/dns/README.md.

dnsperf asks each server for the same names on loopback. The rate is that of one second of the server's own
CPU time, because dnsperf runs on the same CPUs. unbound is measured if it is installed, with the zone that
`kproxy dns zone` prints.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.arguments import Arguments
from bench.dns.changes import Changes, in_memory, replacing, write
from bench.process import Failed, cpu_of, exits_with_status, memory_of, until

SERVICES = (10, 10_000)
ENDPOINTS = (3, 5_000)
QUESTIONS = 20_000
PORT = "5399"
CIDR = "10.96.0.0/16"
READY_SECONDS = 120.0
UNBOUND = """server:
  interface: 127.0.0.1@{port}
  access-control: 127.0.0.0/8 allow
  num-threads: 1
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: ""
auth-zone:
  name: cluster.local
  zonefile: "{folder}/zone"
  for-upstream: no
  for-downstream: yes
remote-control:
  control-enable: no
"""


class Figures(NamedTuple):
    """The cost of a server."""

    server: str
    services: int
    rate: float
    """Answers for one second of its CPU time."""
    memory: int
    """Resident memory afterwards, in MiB."""
    lost: int
    """Questions without an answer."""


def manifests(count: int) -> str:
    """Return Services with a ClusterIP and a named port, as JSON."""
    items = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"web-{number}"},
            "spec": {
                "clusterIP": f"10.96.{1 + number // 250}.{1 + number % 250}",
                "ports": [{"name": "http", "port": 80}],
            },
        }
        for number in range(count)
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def questions(count: int, seed: int = 1) -> Iterator[str]:
    """Yield questions as pods ask them: A and AAAA, the next domain of the search list, and SRV."""
    chance = random.Random(seed)
    kinds = ("{} A", "{} AAAA", "{}.svc.cluster.local A", "_http._tcp.{} SRV")
    for _ in range(QUESTIONS):
        name = f"web-{chance.randrange(count)}.default.svc.cluster.local"
        yield chance.choices(kinds, (45, 30, 15, 10))[0].format(name)


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, and wait until it answers."""
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:

        def logged() -> str:
            return (folder / "log").read_text()[-500:]

        def check_alive() -> None:
            if process.poll() is not None:
                raise Failed(f"{command[0]} has ended: {logged()}")

        try:
            ask = ["dig", "@127.0.0.1", "-p", PORT, "+tries=1", "+time=1", "web-1.default.svc.cluster.local"]
            until(
                lambda: b"status: NOERROR" in subprocess.run(ask, capture_output=True, check=False).stdout,
                lambda: f"{command[0]} does not answer: {logged()}",
                READY_SECONDS,
                check=check_alive,
            )
            yield process
        finally:
            process.terminate()


def measure(server: str, command: list[str], count: int, folder: Path, seconds: int) -> Figures:
    """Measure a server that has `count` Services."""
    with running(command, folder) as process:
        asked = ["dnsperf", "-s", "127.0.0.1", "-p", PORT, "-d", str(folder / "questions"), "-c", "20"]
        subprocess.run([*asked, "-l", "1"], capture_output=True, check=True)
        before = cpu_of(process.pid)
        text = subprocess.run([*asked, "-l", str(seconds)], capture_output=True, text=True, check=True).stdout
        used = cpu_of(process.pid) - before
        completed, lost = (int(number) for number in re.findall(r"Queries (?:completed|lost): +(\d+)", text))
        return Figures(server, count, completed / used, memory_of(process.pid) >> 20, lost)


def measure_all(seconds: int) -> Iterator[Figures]:
    """Measure each server with each number of Services."""
    for count in SERVICES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "web.json").write_text(manifests(count))
            (folder / "questions").write_text("".join(f"{each}\n" for each in questions(count)))
            kproxy = [sys.executable, "-m", "kproxy", "dns"]
            flags = ["-f", str(folder / "web.json"), "--state-dir", str(folder), "--service-cidr", CIDR]
            serve = [*kproxy, "serve", *flags, "--listen", f"127.0.0.1:{PORT}", "--upstream", ""]
            yield measure("kproxy", serve, count, folder, seconds)
            if unbound := shutil.which("unbound"):
                zone = subprocess.run([*kproxy, "zone", *flags], capture_output=True, check=True).stdout
                (folder / "zone").write_bytes(zone)
                (folder / "unbound.conf").write_text(UNBOUND.format(port=PORT, folder=folder))
                command = [unbound, "-d", "-c", str(folder / "unbound.conf")]
                yield measure("unbound", command, count, folder, seconds)


def change_all(count: int) -> Iterator[Changes]:
    """Replace an endpoint so often, with each number of Services and endpoints; then the same in memory."""
    for services in SERVICES:
        for endpoints in ENDPOINTS:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                (folder / "manifests").mkdir()
                (folder / "manifests" / "web.json").write_text(manifests(services))
                write(folder / "manifests", endpoints, 0)
                serve = [sys.executable, "-m", "kproxy", "dns", "serve", "-f", str(folder / "manifests")]
                flags = ["--state-dir", name, "--service-cidr", CIDR, "--listen", f"127.0.0.1:{PORT}"]
                with running([*serve, *flags, "--upstream", ""], folder):
                    seconds, counts = replacing(folder / "manifests", int(PORT), endpoints, count)
                yield Changes("file", services, endpoints, seconds, counts)
            yield in_memory(manifests(services), endpoints, count)


def table_of_changes(results: Iterable[Changes]) -> str:
    """Return the table in Markdown."""
    lines = ["| change of | Services | endpoints | p50 | p99 | questions | lost | empty | wrong | slowest |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for each in results:
        counts, (middle, most) = each.counts, each.percentiles
        asked = (f"{counts.asked:,}", counts.asked - counts.answered, counts.empty, counts.wrong)
        cells = (each.of, f"{each.services:,}", f"{each.endpoints:,}", f"{middle:.1f} ms", f"{most:.1f} ms")
        lines.append(f"| {' | '.join(map(str, (*cells, *asked, f'{counts.slowest * 1000:.0f} ms')))} |")
    return "\n".join(lines)


def table(results: Iterable[Figures]) -> str:
    """Return the table in Markdown."""
    lines = ["| server | Services | answers per CPU second | memory | lost |", "|---|---|---|---|---|"]
    lines += (f"| {r.server} | {r.services:,} | {r.rate:,.0f} | {r.memory} MiB | {r.lost} |" for r in results)
    return "\n".join(lines)


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.dns", __doc__)
    parser.number("--seconds", 10, "how long to ask each server")
    parser.number("--changes", 300, "how often to replace an endpoint")
    arguments = parser.parse_args()
    for program in ("dnsperf", "dig"):
        if shutil.which(program) is None:
            parser.error(f"{program} is not installed (Debian: dnsperf, bind9-dnsutils)")
    with exits_with_status():
        print(table(measure_all(arguments.seconds)))
        print()
        print(table_of_changes(change_all(arguments.changes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
