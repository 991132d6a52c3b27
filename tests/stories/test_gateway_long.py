"""A thousand changes under load: no request fails, and HAProxy is reloaded only for new backends.

It prints how long changes took from the event of the file until HAProxy had them.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from functools import partial
from itertools import combinations, cycle
from pathlib import Path

import pytest
from netns_lab.lab import Lab

from tests.ingresses import HOST, ingress, secret, with_tls
from tests.stories.test_gateway import haproxy, metric, serves, web
from tests.stories.web_client import Client
from tests.support import Manifest, Running, eventually, service, slices

pytestmark = [pytest.mark.lab, pytest.mark.long]
ENDPOINTS, CERTIFICATES, BACKENDS = 1000, 100, 20
PACE = "function delay() return 40 end\n"
"""A wrk script: each connection sends a request 40 ms after the response before."""
DONE = re.compile(r"HAProxy has the change after ([0-9.]+) ms")
PODS = [names for count in (1, 2, 3) for names in combinations(("pod-1", "pod-2", "pod-3"), count)]
LIMITED = {"nginx.ingress.kubernetes.io/proxy-body-size": "1m"}
"""An annotation that needs lines of its own in the file, so that no spare backend can be used."""


class Changes:
    """Changes one after the other, each as soon as HAProxy has the one before."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.times: list[float] = []
        self.reports: list[str] = []

    def make(self, name: str, *manifests: Manifest) -> None:
        begun = self._running.log.stat().st_size
        self._running.write(name, *manifests)
        eventually(partial(self._took, begun), self._running.logged)

    def _took(self, begun: int) -> bool:
        with self._running.log.open() as log:
            log.seek(begun)
            found = DONE.findall(log.read())
        self.times += map(float, found)
        return bool(found)

    def report(self, what: str) -> None:
        times = sorted(self.times)
        shares = ((50, len(times) // 2), (99, len(times) * 99 // 100), (100, len(times) - 1))
        found = ", ".join(f"p{share} {times[at]:.1f} ms" for share, at in shares)
        self.reports.append(f"{what} {len(times)} changes, {found}")
        self.times = []


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path, flags=["--gateway", "-v"]) as running:
        yield running


class Wrk:
    """wrk on the client, as a context manager."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        script, self._report = folder / "pace.lua", folder / "wrk"
        script.write_text(PACE)
        command = ["wrk", "-t", "1", "-c", "20", "-d", "3600", "-s", str(script), "-H", f"Host: {HOST}"]
        with self._report.open("w") as report:
            url = f"http://{lab.node('n1').address(4)}/"
            self._process = lab.client("outside").popen([*command, url], stdout=report)

    def stop(self) -> str:
        """Return the report."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        return self._report.read_text()


def requests(report: str) -> int:
    """Return the number of requests. Fails if any failed."""
    assert "Socket errors" not in report, report
    assert "Non-2xx" not in report, report
    return int(re.findall(r"(\d+) requests in", report)[0])


def others(lab: Lab, number: int) -> list[Manifest]:
    """A Service of its own, with an Ingress whose annotation needs a backend section of its own."""
    name = f"new-{number}"
    ips = {4: f"10.96.20.{number + 1}", 6: f"fd00:96::{0x2000 + number:x}"}
    made = ingress(name, f"{name}.example.com", name, annotations=LIMITED)
    return [service(name, cluster_ips=ips), *slices(lab, ["pod-1"], name=name), made]  # type: ignore[arg-type]


def test_a_thousand_changes_under_load(
    lab: Lab, tmp_path: Path, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    client, changes = Client(lab.client("outside"), lab.node("n1").address(4)), Changes(running)
    # 1. An Ingress, and a host with a certificate, so that later ones need no listener.
    running.write("web", *web(lab, "pod-1"))
    running.write(
        "first", secret("first", "first.example.com"), with_tls("first.example.com", "first", "first")
    )
    eventually(lambda: client.serial("first.example.com") == 1 and client.get()[0] == 200, running.logged)
    process, wrk = haproxy(running), Wrk(lab, tmp_path)
    reloads = metric(running, "kproxy_gateway_reloads_total")
    # 2. Endpoints come and go.
    for _, pods in zip(range(ENDPOINTS), cycle(PODS), strict=False):
        changes.make("web", *web(lab, *pods))
    changes.report("endpoints:")
    # 3. Hosts come with certificates, and certificates are renewed.
    hosts: dict[str, list[Manifest]] = {}
    for number in range(CERTIFICATES):
        host = f"host-{number // 2}.example.com"
        name = f"tls-{number // 2}"
        hosts[host] = [secret(name, host, number + 10), with_tls(host, name, name)]
        changes.make("tls", *(each for made in hosts.values() for each in made))
    changes.report("hosts and certificates:")
    assert client.serial("host-0.example.com") == 11
    assert haproxy(running) == process
    # 4. Backends that need lines of their own in the file.
    for number in range(BACKENDS):
        changes.make(f"new-{number}", *others(lab, number))
        eventually(partial(serves, client, f"new-{number}.example.com"), running.logged)
    changes.report("new backends:")
    # 5. No request failed, and only new backends needed a reload.
    sent = requests(wrk.stop())
    with capsys.disabled():
        print(f"\n{sent:,} requests", *changes.reports, sep="\n")
    assert metric(running, "kproxy_gateway_reloads_total") == reloads + BACKENDS
