"""Pods that fail under a whole `kproxy run`: how soon the kernel leads nobody there any more, at what cost.

The pods of bench.probes, behind services, as manifests in a folder that a kproxy process follows. It
and the pods are in a network namespace of their own. When the pods are taken away, the kernel's map of
endpoints is read every 50 ms by netlink: what is not in it any more gets no new connection.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.probes import FAILING, PERIOD, Figures, address, processor_of, world
from kproxy.kernel.netlink.core.elements import read_element
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.model import Family, format_address
from kproxy.table.keys import PackedSocket, socket_address
from kproxy.table.names import SetName

SERVICES = 20
NETWORK = 10
"""The first byte of the pods' addresses: a Pod on loopback is refused."""
LOOK = 0.05
"""Seconds."""


def manifests(count: int, port: int) -> list[dict[str, Any]]:
    """Services, and the pods behind them in turn."""
    made: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"app-{number}"},
            "spec": {"selector": {"app": f"app-{number}"}, "ports": [{"port": 80, "targetPort": port}]},
        }
        for number in range(SERVICES)
    ]
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
    """The addresses that connections are led to."""
    try:
        elements = map(read_element, netlink.elements(Family.IPV4, SetName.ENDPOINTS_TCP))
        return {socket_address(PackedSocket(value)) for _, value in elements if isinstance(value, bytes)}
    except NetlinkError:  # no table yet
        return set()


def run(name: str, count: int, seconds: float) -> Figures:
    """One run, in the namespace that the process is in."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "route", "add", "local", f"{NETWORK}.1.0.0/16", "dev", "lo"], check=True)
    with (
        tempfile.TemporaryDirectory() as text,
        world("httpGet", count, 0, Path(text), NETWORK) as (port, take),
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
                until(lambda: len(endpoints(netlink)) == count, 4 * PERIOD)
                time.sleep(1.5 * PERIOD)
                before = processor_of(process.pid)
                time.sleep(seconds)
                own = (processor_of(process.pid) - before) / seconds
                take()
                begin = time.monotonic()
                delays: list[float] = []
                until(lambda: note(delays, count - len(endpoints(netlink)), begin), 3 * PERIOD)
            finally:
                process.terminate()
                process.wait()
    return Figures(name, own, 0.0, delays)


def note(delays: list[float], gone: int, begin: float) -> bool:
    """Write down when those went that are gone; whether all are."""
    delays += [time.monotonic() - begin] * (gone - len(delays))
    return gone >= FAILING


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Until it holds; SystemExit if it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("bench: the pods do not come or go in time")
        time.sleep(LOOK)
