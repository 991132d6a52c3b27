"""A state directory that is broken or in use: kproxy reports it and does not change the dataplane."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.netns import in_fresh_namespace
from netns_lab.probe import http_get, many

from kproxy.cli import main
from kproxy.state import lock
from tests.support import SERVICE_IP, Kproxy, Manifest, changes, service, slices

pytestmark = pytest.mark.lab

UNTOUCHED = "The rules in the kernel are unchanged."


@pytest.fixture
def web(lab: Lab) -> list[Manifest]:
    return [service(), *slices(lab, ["pod-1", "pod-2"])]


def synced(kproxy: Kproxy, *manifests: Manifest) -> int:
    """Sync these manifests. Returns the generation of the ruleset."""
    kproxy.sync(*manifests)
    return kproxy.generation()


def damage(database: Path) -> None:
    content = database.read_bytes()
    database.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


def replace(database: Path) -> None:
    database.write_text("not a database\n" * 100)


def renumber(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 99")


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "damaged": (damage, "malformed", "move it away"),
    "another file": (replace, "file is not a database", "move it away"),
    "of a newer kproxy": (
        renumber,
        "has schema version 99, of a newer kproxy; this kproxy supports up to",
        "Use the newer kproxy",
    ),
}


@pytest.mark.parametrize(("act", "message", "remedy"), BROKEN.values(), ids=BROKEN)
def test_a_database_that_cannot_be_read(
    lab: Lab,
    kproxy: Kproxy,
    web: list[Manifest],
    act: Callable[[Path], None],
    message: str,
    remedy: str,
) -> None:
    before = synced(kproxy, *web)
    database = kproxy.state / "allocations.sqlite"
    act(database)
    content = database.read_bytes()
    done = kproxy.run("sync", service("other"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"kproxy: {database}: ")
    for part in (message, remedy, UNTOUCHED):
        assert part in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert database.read_bytes() == content
    assert kproxy.generation() == before
    assert set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 40)) == {"pod-1", "pod-2"}


def test_the_remedy_in_the_message_helps(lab: Lab, kproxy: Kproxy, web: list[Manifest]) -> None:
    """After the damaged file is moved away, names and manifests determine the same allocations."""
    automatic = service("automatic", type="NodePort")
    for key in ("clusterIP", "clusterIPs"):
        del automatic["spec"][key]
    before = synced(kproxy, automatic, *web)
    database = kproxy.state / "allocations.sqlite"
    damage(database)
    assert kproxy.run("sync", automatic, *web).returncode == 1
    database.rename(database.with_suffix(".damaged"))
    assert "nothing to change" in kproxy.sync(automatic, *web)
    assert kproxy.generation() == before


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
FULL = """
mount -t tmpfs -o size=64k none "$0" && cp -a "$0.copy/." "$0"
dd status=none if=/dev/zero of="$0/x" 2>/dev/null
exec "$@"
"""


def sync_in_mounts(kproxy: Kproxy, script: str, *manifests: Manifest) -> subprocess.CompletedProcess[str]:
    """A sync that sees its state directory on another file system; "$0" in `script` is the directory."""
    command = ["unshare", "--mount", "sh", "-c", script, str(kproxy.state), *kproxy.command("sync")]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
    return kproxy.node.run(command, input=text, capture_output=True)


NO_PROC = 'mount -t tmpfs none /proc && exec "$@"'


@pytest.mark.parametrize("verb", ["run -f {0} --allow-empty", "get services"])
def test_without_proc_the_error_says_what_is_missing(kproxy: Kproxy, tmp_path: Path, verb: str) -> None:
    words = [*verb.format(tmp_path).split(), "--state-dir", str(tmp_path)]
    command = ["unshare", "--mount", "sh", "-c", NO_PROC, "sh", sys.executable, "-m", "kproxy", *words]
    done = kproxy.node.run(command, capture_output=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.endswith("kproxy: /proc is not mounted. Mount it: mount -t proc proc /proc\n")


def test_a_read_only_directory(lab: Lab, kproxy: Kproxy, web: list[Manifest]) -> None:
    before = synced(kproxy, *web)
    done = sync_in_mounts(
        kproxy, READ_ONLY, *web, service("other", cluster_ips={4: "10.96.10.20"}, families=[4])
    )
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"kproxy: {kproxy.state}/lock: Read-only file system. kproxy needs read and write access"
    )
    assert "--state-dir" in done.stderr
    assert UNTOUCHED in done.stderr
    assert kproxy.generation() == before


def test_a_full_disk_fails_a_sync_only_if_it_has_to_save(
    lab: Lab, kproxy: Kproxy, web: list[Manifest]
) -> None:
    before = synced(kproxy, *web)
    shutil.copytree(kproxy.state, f"{kproxy.state}.copy")
    many_more = []
    for number in range(200):  # more than fits in the free pages of the database
        more = service(f"more-{number}", families=[4], cluster_ips={4: f"10.96.20.{number + 1}"})
        many_more.append(more)
    done = sync_in_mounts(kproxy, FULL, *web, *many_more)
    assert done.returncode == 1
    assert done.stderr == (
        f"kproxy: {kproxy.state}/allocations.sqlite: database or disk is full. "
        f"Free space on that disk, or select another --state-dir. {UNTOUCHED}\n"
    )
    assert kproxy.generation() == before
    fewer = [web[0], *slices(lab, ["pod-1"])]
    done = sync_in_mounts(kproxy, FULL, *fewer)  # endpoints are not saved
    assert (done.returncode, done.stderr) == (0, "")
    assert set(many(lab.pod("pod-3"), SERVICE_IP[4], 80, 10)) == {"pod-1"}


HOLD = """
import sys
from pathlib import Path
from kproxy.state.store import Store
with Store(Path(sys.argv[1])).lock(sys.argv[2], sys.stderr.write):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("verb", ["sync", "cleanup"])
def test_a_state_directory_that_a_daemon_uses(
    lab: Lab, kproxy: Kproxy, web: list[Manifest], verb: str
) -> None:
    before = synced(kproxy, *web)
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, str(kproxy.state), "run"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as daemon:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "mine\n"
        done = kproxy.run("sync") if verb == "sync" else kproxy.cleanup()
        daemon.communicate("")
    assert done.returncode == 1
    assert done.stderr == (
        f"kproxy: {kproxy.state}/lock: in use by `kproxy run` (process {daemon.pid}). "
        f"Stop that process first. {UNTOUCHED}\n"
    )
    assert kproxy.generation() == before
    assert len(changes(kproxy.sync(), "-")) == 2


@pytest.mark.parametrize("verb", ["sync", "cleanup"])
def test_a_wait_for_another_process_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    path, arguments = tmp_path / lock.FILE, [verb, "--state-dir", str(tmp_path)]
    monkeypatch.setattr(lock, "NOTICE", 0)
    with path.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr("kproxy.state.lock.time.sleep", lambda _: fcntl.flock(held, fcntl.LOCK_UN))
        options = ["-f", os.devnull, "--allow-empty"] if verb == "sync" else []
        assert in_fresh_namespace(lambda: main([*arguments, *options])) == 0
    assert capsys.readouterr().err.startswith(f"kproxy: {path}: waiting for another process\n")


def test_with_an_exhausted_pool_services_are_served_without_an_address(lab: Lab, kproxy: Kproxy) -> None:
    pool = "--load-balancer-pool", "198.51.100.7,2001:db8:100::7"
    web = [service(type="LoadBalancer"), *slices(lab, ["pod-1"])]
    output = kproxy.sync(*web, flags=pool)
    assert "+ default/web 198.51.100.7:80/tcp -> 1 endpoint" in output
    for address in ("198.51.100.7", "2001:db8:100::7"):
        assert http_get(lab.pod("pod-3"), address, 80).pod == "pod-1"
    late: Manifest = service("late", type="LoadBalancer")
    for key in ("clusterIP", "clusterIPs"):
        del late["spec"][key]
    done = kproxy.run("sync", *web, late, *slices(lab, ["pod-2"], name="late"), flags=pool)
    assert done.returncode == 1
    assert (
        "Service default/late: status.loadBalancer: no IPv4 and no IPv6 address is free in "
        "--load-balancer-pool 198.51.100.7,2001:db8:100::7\n"
    ) in done.stderr
    node_ports = [line.split()[2] for line in changes(done.stdout, "+")]
    assert len(node_ports) == 4  # ClusterIPs and node ports
    assert http_get(lab.pod("pod-3"), "198.51.100.7", 80).pod == "pod-1"
    clusterip = next(at for at in node_ports if at.startswith("10.96."))
    assert http_get(lab.pod("pod-3"), clusterip.partition(":")[0], 80).pod == "pod-2"
