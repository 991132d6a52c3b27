"""`python -m bench.gateway`: Ingresses of `kproxy run --gateway`, and the table of docs/ingress.md.

kproxy runs in a network namespace of its own. It gets the Services, then all Ingresses in one file, then a
changed endpoint, one after the other. Each time ends when HAProxy has the change, as kproxy logs it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from netns_lab.netns import in_fresh_namespace

from bench.arguments import Arguments
from bench.process import Failed, exits_with_status, memory_of, until

INGRESSES = (10, 100, 1_000)
RULES, ENDPOINTS, CHANGES = 3, 3, 30
PATIENCE = 300.0
DONE = re.compile(r"HAProxy has the change after ([0-9.]+) ms")


class Figures(NamedTuple):
    """The figures of one number of Ingresses."""

    ingresses: int
    seconds: float
    """From the file with the Ingresses until HAProxy runs with them."""
    change: float
    """Median of a change of an endpoint, in ms."""
    haproxy: int
    """Resident memory in MiB; of kproxy likewise."""
    kproxy: int


def services(numbers: range, turn: int = 0) -> Iterator[dict[str, Any]]:
    """Yield Services with their endpoints. Each `turn` gives them another endpoint."""
    for number in numbers:
        name = f"web-{number}"
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "clusterIP": f"10.96.{1 + number // 250}.{1 + number % 250}",
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        }
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 8080}],
            "endpoints": [
                {"addresses": [f"10.{number // 250}.{number % 250}.{place + 1 + turn}"]}
                for place in range(ENDPOINTS)
            ],
        }


def ingresses(count: int) -> Iterator[dict[str, Any]]:
    """Yield Ingresses of `RULES` hosts each."""
    for number in range(count):
        backend = {"service": {"name": f"web-{number}", "port": {"number": 80}}}
        paths = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
        yield {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": f"web-{number}"},
            "spec": {
                "rules": [{"host": f"h{rule}.n{number}.example.com", "http": paths} for rule in range(RULES)]
            },
        }


class Gateway:
    """kproxy with a gateway, in a folder, until `stop`."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / "log"
        (folder / "manifests").mkdir()
        command = [
            *(sys.executable, "-m", "kproxy", "run", "--gateway", "-v", "--node-ip", "127.0.0.1"),
            *("-f", str(folder / "manifests"), "--state-dir", str(folder / "state"), "--no-dns"),
        ]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def write(self, name: str, objects: Iterator[dict[str, Any]]) -> float:
        """Write a file. Returns the milliseconds until HAProxy has it."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        new = self._folder / "manifests" / f".{name}"
        new.write_text(text)
        begun = self._log.stat().st_size
        new.rename(self._folder / "manifests" / f"{name}.json")
        until(
            lambda: bool(DONE.search(self._logged(begun))),
            lambda: f"kproxy run: {self._logged(0)[-1000:]}",
            PATIENCE,
            0.01,
            self._check_alive,
        )
        return float(DONE.findall(self._logged(begun))[0])

    def _check_alive(self) -> None:
        if self.process.poll() is not None:
            raise Failed(f"kproxy run ended: {self._logged(0)[-1000:]}")

    def haproxy(self) -> int:
        """Return the number of HAProxy's process."""
        folders = (self._folder / "state" / "gateway").glob("[0-9]*")
        newest = max(folders, key=lambda folder: int(folder.name))
        return int((newest / "pid").read_text())

    def stop(self) -> None:
        """End both processes."""
        os.kill(self.haproxy(), signal.SIGTERM)
        self.process.terminate()
        self.process.wait()

    def _logged(self, begun: int) -> str:
        """Return the log from a place on."""
        with self._log.open() as log:
            log.seek(begun)
            return log.read()


def measure(count: int) -> Figures:
    """Measure with this number of Ingresses."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as name:
        gateway = Gateway(Path(name))
        try:
            gateway.write("services", services(range(1, count)))
            gateway.write("first", services(range(1)))
            whole = gateway.write("ingresses", ingresses(count))
            changes = [gateway.write("first", services(range(1), turn)) for turn in range(1, CHANGES + 1)]
            sizes = memory_of(gateway.haproxy()) >> 20, memory_of(gateway.process.pid) >> 20
        finally:
            gateway.stop()
    return Figures(count, whole / 1000, statistics.median(changes), *sizes)


def table(results: list[Figures]) -> str:
    """Return the table."""
    lines = ["| Ingresses | in use | changed endpoint | HAProxy | kproxy |", "|---:|---:|---:|---:|---:|"]
    for each in results:
        figures = f"{each.seconds:.2f} s | {each.change:.1f} ms | {each.haproxy} MiB | {each.kproxy} MiB"
        lines.append(f"| {each.ingresses:,} | {figures} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print. Returns the exit status."""
    parser = Arguments("bench.gateway", __doc__)
    parser.numbers("--ingresses", INGRESSES)
    arguments = parser.parsed_by_root()
    with exits_with_status():
        results = [in_fresh_namespace(partial(measure, count)) for count in arguments.ingresses]
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
