"""kube-proxy as a process, in nftables mode: the peer of the same run.

The program is no part of the project. Its table `ip kube-proxy` has a map of ClusterIPs with the keys of
kproxy's map `services`, and for each Service a chain with an anonymous map of its endpoints.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

from bench.daemon.kernel import PATIENCE, Probe
from bench.daemon.subject import METRICS, NODE, Subject
from bench.process import CHILDREN, STIME, memory_of, ticks_of, until
from bench.samples import CLUSTER_CIDR

TABLE, SERVICES = "kube-proxy", "service-ips"
SYNCED = re.compile(
    rb'^kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"} [1-9]', re.MULTILINE
)
PAUSE = 0.05
"""Seconds between two looks at its metrics."""
SAMPLE = 0.02
"""Seconds between two looks at the memory."""


def probe(frontend: bytes) -> Probe:
    """Return a probe of the map of ClusterIPs."""
    return Probe(frontend, TABLE, SERVICES)


def has_endpoints(name: str) -> bool:
    """Return whether a map is an anonymous one."""
    return name.startswith("__map")


def command(program: Path, folder: Path) -> list[str]:
    """Return the command, which changes no sysctls of conntrack. `folder` has the kubeconfig."""
    return [
        str(program),
        f"--kubeconfig={folder / 'kubeconfig'}",
        "--proxy-mode=nftables",
        f"--hostname-override={NODE}",
        f"--cluster-cidr={CLUSTER_CIDR}",
        "--healthz-bind-address=127.0.0.1:10256",
        "--metrics-bind-address=127.0.0.1:10249",
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
    ]


class KubeProxy(Subject):
    """A started kube-proxy. Its figures include the nft processes that it starts."""

    def __init__(self, process: subprocess.Popen[bytes], began: float, log: Path) -> None:
        super().__init__(process, began, log)
        self._together = 0
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def ready(self) -> float:
        """Wait until it has written all rules once. Returns the time (time.monotonic)."""
        outcome = "kube-proxy does not report that it has written its rules"
        return until(self._synced, lambda: outcome, PATIENCE, PAUSE, self.check_alive)

    def cpu(self) -> float:
        return super().cpu() + sum(ticks_of(self.pid)[CHILDREN])

    def kernel(self) -> float:
        return super().kernel() + ticks_of(self.pid)[CHILDREN][STIME]

    def peak(self) -> int:
        """Return the peak resident memory of it and its nft processes together, as far as it was sampled."""
        return max(self._together, super().peak())

    def _synced(self) -> bool:
        with suppress(OSError), urlopen(METRICS) as response:
            return bool(SYNCED.search(response.read()))
        return False

    def _watch_memory(self) -> None:
        tasks = Path(f"/proc/{self.pid}/task")
        while self.process.returncode is None:
            with suppress(OSError):  # a process has ended
                children = " ".join(file.read_text() for file in tasks.glob("*/children")).split()
                resident = sum(map(memory_of, [str(self.pid), *filter(_is_nft, children)]))
                self._together = max(self._together, resident)
            time.sleep(SAMPLE)


def _is_nft(process: str) -> bool:
    """Return whether a child process is nft already. Before, it shares the memory of kube-proxy."""
    return Path(f"/proc/{process}/comm").read_text() == "nft\n"


@contextmanager
def running(program: Path, folder: Path) -> Iterator[KubeProxy]:
    """Start a kube-proxy, and stop it at the end. Its log is `folder`/kube-proxy.log."""
    path = folder / "kube-proxy.log"
    began = time.monotonic()
    with (
        path.open("w") as log,
        subprocess.Popen(command(program, folder), stdout=log, stderr=log) as process,
    ):
        try:
            yield KubeProxy(process, began, path)
        finally:
            process.terminate()
