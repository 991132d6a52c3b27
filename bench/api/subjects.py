"""The programs whose requests are counted. Each is started in the present network namespace, and ended."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.daemon.kernel import PATIENCE
from bench.daemon.subject import running
from bench.process import Failed
from bench.samples import CLUSTER_CIDR, PORT, Sample

NODE = "this-node"
PAUSE = 0.2


@contextmanager
def kproxy(folder: Path, last: Sample) -> Iterator[None]:
    """Start kproxy, and wait until it is ready. `folder` has the kubeconfig."""
    with running(folder) as subject:
        subject.ready()
        yield


def kube_proxy_command(program: Path, folder: Path) -> list[str]:
    """Return the command of a kube-proxy in nftables mode that changes no sysctls of conntrack."""
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


@contextmanager
def kube_proxy(program: Path, folder: Path, last: Sample) -> Iterator[None]:
    """Start a kube-proxy, and wait until its table has the last Service."""
    path = folder / "kube-proxy.log"
    with (
        path.open("w") as log,
        subprocess.Popen(kube_proxy_command(program, folder), stdout=log, stderr=log) as process,
    ):
        try:
            _wait(process, last, path)
            yield
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], last: Sample, log: Path) -> None:
    element = f"{{ {last.address} . tcp . {PORT} }}"
    question = ["nft", "get", "element", "ip", "kube-proxy", "service-ips", element]
    end = time.monotonic() + PATIENCE
    while subprocess.run(question, capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > end:
            raise Failed(f"{process.args!r} does not program the last Service:\n{log.read_text()[-2000:]}")
        time.sleep(PAUSE)
