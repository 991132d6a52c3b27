"""Pods find Services by name, as in the book chapter: with curl, nslookup, busybox, glibc and musl."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from netns_lab.lab import Handle, Lab

from tests import forkserver
from tests.support import SERVICE_CIDRS, Manifest, Running, eventually, service, slices

pytestmark = pytest.mark.lab

SERVER = "10.96.0.10"
KUBIA = service("kubia", {"port": 80, "targetPort": 8080, "name": "http"}, families=[4])
NAMES = ["kubia", "kubia.default", "kubia.default.svc.cluster.local", "KUBIA.Default.svc"]
HITS = ["You've hit pod-1", "You've hit pod-2"]
OTHER = "api.default.svc.example.test"
"""A name that a second server knows."""
RESOLVE = r"""
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>

int main(int count, char **words) {
    struct addrinfo *found, hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    char text[64];
    if (getaddrinfo(words[1], 0, &hints, &found)) return 1;
    for (; found; found = found->ai_next)
        puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text));
    return 0;
}
"""


def headless(everything: bool = False) -> Manifest:
    return service(
        "kubia-headless",
        families=[4],
        cluster_ips={4: "None"},
        selector={"app": "kubia"},
        publishNotReadyAddresses=everything,
    )


def pod(lab: Lab, name: str, ready: bool) -> Manifest:
    """A Pod with the address of a pod of the lab."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "kubia"}},
        "status": {
            "podIP": lab.pod(name).address(4),
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


class Client:
    """A pod whose resolv.conf is that of `kproxy dns resolv-conf`."""

    def __init__(self, handle: Handle, folder: Path) -> None:
        self.handle = handle
        command = ["dns", "resolv-conf", "--service-cidr", SERVICE_CIDRS.split(",")[0]]
        (folder / "resolv.conf").write_text(
            forkserver.run(handle, [*command, "--resolv-conf", "/dev/null"]).stdout
        )
        self.run("mount", "--bind", str(folder / "resolv.conf"), "/etc/resolv.conf")

    def run(self, *command: str) -> str:
        """Run a command. Returns its output; "" if it fails."""
        done: subprocess.CompletedProcess[str] = self.handle.run(command, capture_output=True)
        return done.stdout if done.returncode == 0 else ""

    def nslookup(self, name: str) -> list[str]:
        """The lines of nslookup, without blanks."""
        return [" ".join(line.split()) for line in self.run("nslookup", name).splitlines() if line]

    def addresses(self, name: str) -> set[str]:
        """The addresses that nslookup finds."""
        head, *lines = self.nslookup(name) or [""]
        assert not head or head == f"Server: {SERVER}"
        return {line.removeprefix("Address: ") for line in lines[1:] if line.startswith("Address: ")}


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    upstream = ["--upstream", lab.client("outside").address(4)]
    with Running(lab.node("n1"), tmp_path, upstream) as found:
        found.write("kubia", KUBIA, *slices(lab, ["pod-1", "pod-2"], {"http": 8080}, "kubia")[:1])
        ready = [pod(lab, "pod-1", True), pod(lab, "pod-2", True), pod(lab, "pod-3", False)]
        found.write("headless", headless(), *ready)
        yield found


@pytest.fixture
def client(lab: Lab, running: Running, tmp_path: Path) -> Client:
    found = Client(lab.pod("pod-3"), tmp_path)
    eventually(lambda: found.addresses("kubia") != set(), running.logged)
    eventually(lambda: found.addresses("kubia-headless") != set(), running.logged)
    return found


def test_curl_finds_a_service(client: Client) -> None:
    for name in NAMES:
        assert client.run("curl", "-sS", f"http://{name}").strip() in HITS


def test_nslookup_as_in_the_chapter(lab: Lab, client: Client, running: Running) -> None:
    one, two, three = (lab.pod(f"pod-{number}").address(4) for number in (1, 2, 3))
    lines = client.nslookup("kubia-headless")
    assert lines[:2] == [f"Server: {SERVER}", f"Address: {SERVER}#53"]
    name = "Name: kubia-headless.default.svc.cluster.local"
    assert sorted(lines[2:]) == sorted([name, f"Address: {one}", name, f"Address: {two}"])
    assert client.nslookup("kubia")[2:] == ["Name: kubia.default.svc.cluster.local", "Address: 10.96.10.10"]
    running.write("publish", headless(everything=True))
    (running.manifests / "headless.json").unlink()
    pods = [pod(lab, f"pod-{number}", number < 3) for number in (1, 2, 3)]
    running.write("headless", headless(everything=True), *pods)
    (running.manifests / "publish.json").unlink()
    eventually(lambda: client.addresses("kubia-headless") == {one, two, three}, running.logged)


def test_busybox_finds_services(lab: Lab, client: Client) -> None:
    assert "10.96.10.10" in client.run("busybox", "nslookup", "kubia.default.svc.cluster.local")
    assert client.run("busybox", "wget", "-qO-", "http://kubia").strip() in HITS


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_getaddrinfo_finds_services(client: Client, lab: Lab, tmp_path: Path, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here (Debian: gcc, musl-tools)")
    (tmp_path / "resolve.c").write_text(RESOLVE)
    command: Sequence[str] = [compiler, str(tmp_path / "resolve.c"), "-o", str(tmp_path / "resolve")]
    subprocess.run(command, check=True)
    for name in NAMES:
        assert client.run(str(tmp_path / "resolve"), name).split() == ["10.96.10.10"]
    found = client.run(str(tmp_path / "resolve"), "kubia-headless").split()
    assert set(found) == {lab.pod("pod-1").address(4), lab.pod("pod-2").address(4)}


def test_an_external_name_that_another_server_knows(
    lab: Lab, client: Client, running: Running, tmp_path: Path
) -> None:
    outside = lab.client("outside")
    other = {**service("api", families=[4], cluster_ips={4: lab.pod("pod-1").address(4)})}
    (tmp_path / "other.json").write_text(str(other).replace("'", '"'))
    command = ["dns", "serve", "-f", str(tmp_path / "other.json"), "--cluster-domain", "example.test"]
    command += ["--listen", f"{outside.address(4)}:53", "--upstream", "", "--state-dir", str(tmp_path / "o")]
    with (tmp_path / "other.log").open("w") as log:
        process = forkserver.popen(outside, command, stdout=log, stderr=log)
    try:
        running.write("ext", service("ext", type="ExternalName", externalName=OTHER, clusterIP=None))
        eventually(
            lambda: client.addresses("ext") == {lab.pod("pod-1").address(4)},
            lambda: running.logged() + (tmp_path / "other.log").read_text() + str(client.nslookup("ext")),
        )
        assert client.run("curl", "-sS", "http://ext:8080").strip() == HITS[0]
        assert client.addresses(OTHER) == {lab.pod("pod-1").address(4)}
        # A client outside the pod network may not ask for other names.
        refused = outside.run(["dig", f"@{SERVER}", OTHER], capture_output=True)
        assert "status: REFUSED" in refused.stdout
    finally:
        process.send_signal(15)
        process.wait(60)
