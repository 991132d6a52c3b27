"""Pods that fail with a complete `kproxy run`: the cost, and the time until the kernel does not lead to them.

The pods of measures.py are endpoints of Services, as manifests in a folder that a kproxy process follows. It
and the pods are in a new network namespace. After pods have failed, this program reads the kernel's map of
endpoints over netlink every 50 ms: an address that is no longer in the map gets no new connections.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.probes.measures import FAILING, PERIOD, Figures, address, world
from bench.process import cpu_of, until
from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.model import Family, format_address
from kproxy.table.layout import PackedSocket, SetName, socket_address

SERVICES = 20
NETWORK = 10
"""The first byte of the pods' addresses. Pods with loopback addresses are not allowed."""
LOOK = 0.05
"""Seconds."""


def services(port: int) -> list[dict[str, Any]]:
    """Return Services whose selectors choose one label each."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"app-{number}"},
            "spec": {"selector": {"app": f"app-{number}"}, "ports": [{"port": 80, "targetPort": port}]},
        }
        for number in range(SERVICES)
    ]


def manifests(count: int, port: int) -> list[dict[str, Any]]:
    """Return Services and their pods, which are distributed evenly."""
    made = services(port)
    probe = {"httpGet": {"path": "/ready", "port": port}, "periodSeconds": PERIOD, "failureThreshold": 1}
    for index in range(count):
        labels = {"app": f"app-{index % SERVICES}"}
        made.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": f"web-{index}", "labels": labels},
                "spec": {"containers": [{"name": "web", "readinessProbe": probe}]},
                "status": {"podIP": format_address(address(index, NETWORK))},
            }
        )
    return made


def endpoints(netlink: Netlink) -> set[bytes]:
    """Return the addresses that connections are led to."""
    try:
        elements = map(read_element, netlink.elements(Family.IPV4, SetName.ENDPOINTS_TCP))
        return {socket_address(PackedSocket(value)) for _, value in elements if isinstance(value, bytes)}
    except NetlinkError:  # the table does not exist yet
        return set()


def run(name: str, count: int, seconds: float) -> Figures:
    """Measure once, in the present network namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "local", f"{NETWORK}.1.0.0/16", "dev", "lo"], check=True)
    with (
        tempfile.TemporaryDirectory() as text,
        world("httpGet", count, 0, Path(text), NETWORK) as (port, fail),
    ):
        folder = Path(text)
        (folder / "all.json").write_text(
            json.dumps({"kind": "List", "apiVersion": "v1", "items": manifests(count, port)})
        )
        command = [sys.executable, "-m", "kproxy", "run", "--manifests", str(folder / "all.json")]
        flags = ["--state-dir", str(folder / "state"), "--node-ip", "192.0.2.1"]
        with (folder / "log").open("w") as log, Netlink() as netlink:
            process = subprocess.Popen([*command, *flags], stderr=log)
            try:
                until(
                    lambda: len(endpoints(netlink)) == count,
                    lambda: f"not all of {count} pods become endpoints in time",
                    4 * PERIOD,
                    LOOK,
                )
                time.sleep(1.5 * PERIOD)
                before = cpu_of(process.pid)
                time.sleep(seconds)
                own = (cpu_of(process.pid) - before) / seconds
                fail()
                begin = time.monotonic()
                delays: list[float] = []
                until(
                    lambda: record(delays, count - len(endpoints(netlink)), begin),
                    lambda: "the failing pods are not removed in time",
                    3 * PERIOD,
                    LOOK,
                )
            finally:
                process.terminate()
                process.wait()
    return Figures(name, own, 0.0, delays)


def record(delays: list[float], removed: int, begin: float) -> bool:
    """Record the delay of pods that were removed since the last call. Returns whether all were."""
    delays += [time.monotonic() - begin] * (removed - len(delays))
    return removed >= FAILING
