"""The lab: its network behaves like a cluster's, labs are independent, and nothing is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from netns_lab import netns, processes, registry
from netns_lab.lab import Handle, Lab
from netns_lab.probe import Download, Outcome, echo, http_get, many, udp_ask
from netns_lab.topology import LOCALHOST, Client, Family, Pod, Port, chapter, lab_pod, multi, single

pytestmark = pytest.mark.lab

KUBIA = "kubia-4bv25"
both_families = pytest.mark.parametrize("family", [4, 6])
askers = pytest.mark.parametrize(
    "asker",
    [
        pytest.param(lambda lab: lab.pod("client"), id="pod"),
        pytest.param(lambda lab: lab.pod(KUBIA), id="itself"),
        pytest.param(lambda lab: lab.node("n1"), id="node"),
        pytest.param(lambda lab: lab.client("outside"), id="outside"),
    ],
)
Asker = Callable[[Lab], Handle]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(chapter()) as lab:
        yield lab


# Hosts answer, and see the client's address


@both_families
@askers
def test_http(lab: Lab, asker: Asker, family: Family) -> None:
    reply = http_get(asker(lab), lab.pod(KUBIA).address(family), 8090)
    assert reply.outcome is Outcome.ANSWERED
    assert (reply.pod, reply.port, reply.status) == (KUBIA, 8090, 200)
    assert reply.client == asker(lab).address(family)
    assert reply.body == f"You've hit {KUBIA} on mux1\n"


@both_families
@askers
def test_udp(lab: Lab, asker: Asker, family: Family) -> None:
    reply = udp_ask(asker(lab), lab.pod(KUBIA).address(family), 5353, "hallo")
    assert (reply.outcome, reply.pod, reply.port, reply.body) == (Outcome.ANSWERED, KUBIA, 5353, "hallo")
    assert reply.client == asker(lab).address(family)


@both_families
@askers
def test_ping(lab: Lab, asker: Asker, family: Family) -> None:
    assert echo(asker(lab), lab.pod(KUBIA).address(family))


@both_families
def test_missing_addresses_and_ports(lab: Lab, family: Family) -> None:
    client, unused = lab.client("outside"), {4: "10.244.1.99", 6: "fd00:10:244:1::99"}[family]
    assert not echo(client, unused, timeout=0.2)
    assert http_get(client, unused, 8080, timeout=0.2).outcome is Outcome.TIMEOUT
    there = lab.pod(KUBIA).address(family)
    # Ten times, because ICMP errors must not be rate-limited.
    assert {http_get(client, there, 9).outcome for _ in range(10)} == {Outcome.REFUSED}
    assert {udp_ask(client, there, 9).outcome for _ in range(10)} == {Outcome.REFUSED}


@both_families
@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        ("drop", Outcome.TIMEOUT),
        ("reject", Outcome.REFUSED),
        ("reject with icmpx type admin-prohibited", Outcome.UNREACHABLE),
    ],
)
@pytest.mark.parametrize(("where", "hook"), [("outside", "output"), ("n1", "forward")])
def test_the_outcomes_of_rules(
    lab: Lab, family: Family, verdict: str, outcome: Outcome, where: str, hook: str
) -> None:
    client, there = lab.client("outside"), lab.pod(KUBIA).address(family)
    host = client if where == "outside" else lab.node(where)
    rules = f"type filter hook {hook} priority 0; meta l4proto {{ tcp, udp }} {verdict};"
    host.run(["nft", f"table inet no {{ chain no {{ {rules} }}; }}"], check=True)
    timeout = 0.2 if outcome is Outcome.TIMEOUT else 10
    try:
        assert http_get(client, there, 8080, timeout).outcome is outcome
        assert udp_ask(client, there, 5353, timeout=timeout).outcome is outcome
        assert echo(client, there)
    finally:
        host.run(["nft", "delete table inet no"], check=True)


@both_families
def test_source_port(lab: Lab, family: Family) -> None:
    client, address = lab.client("outside"), lab.pod(KUBIA).address(family)
    assert http_get(client, address, 8080, source_port=4711).client_port == 4711
    assert http_get(client, address, 8080, source_port=4711).client_port == 4711  # again, without a delay
    assert udp_ask(client, address, 5353, source_port=4711).client_port == 4711


@both_families
def test_many(lab: Lab, family: Family) -> None:
    assert many(lab.pod("client"), lab.pod(KUBIA).address(family), 8080, 1000) == {KUBIA: 1000}


def test_stream_keeps_its_rate(lab: Lab) -> None:
    begin = time.monotonic()
    reply = http_get(
        lab.pod("client"), lab.pod(KUBIA).address(4), 8080, path="/stream?bytes=30000&rate=100000"
    )
    assert len(reply.body) == 30000
    assert time.monotonic() - begin > 0.2


def test_connections_are_kept_until_an_error(lab: Lab) -> None:
    with lab.pod("client").socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect((lab.pod(KUBIA).address(4), 8080))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nHost: a\r\n\r\nrubbish\r\n\r\n")
        answers = b"".join(iter(partial(sock.recv, 4096), b"")).decode()
    assert [line for line in answers.splitlines() if line.startswith("HTTP/")] == [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 400 Bad Request",
    ]
    assert answers.count("You've hit") == 1


# Packets take the same path as in a cluster


IP_RECVTTL = 12  # defined in Python's socket from 3.14


def hop_limit(asker: Handle, address: str) -> int:
    """Return the remaining hop limit of a pod's UDP answer, which starts with 64."""
    v6 = ":" in address
    level, wanted = (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT) if v6 else (socket.IPPROTO_IP, IP_RECVTTL)
    with asker.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.setsockopt(level, wanted, 1)
        sock.sendto(b"", (address, 5353))
        _, ((_, _, value),), _, _ = sock.recvmsg(4096, 64)
    return int.from_bytes(value, sys.byteorder)


@both_families
def test_nodes_route_all_packets_between_pods(family: Family) -> None:
    with Lab(multi(2, 2)) as lab:
        far, near = lab.pod("n2-pod-1").address(family), lab.pod("n1-pod-2").address(family)
        assert hop_limit(lab.pod("n1-pod-1"), near) == 63
        assert hop_limit(lab.pod("n1-pod-1"), far) == 62
        assert hop_limit(lab.node("n1"), near) == 64
        assert hop_limit(lab.client("outside"), near) == 63
        # The request goes through n1, which forwards it; the answer comes through n2 only.
        assert hop_limit(lab.client("outside"), far) == 63
        assert http_get(lab.pod("n1-pod-1"), far, 8080).client == lab.pod("n1-pod-1").address(family)


def test_a_single_family() -> None:
    with Lab(replace(single(1), families=(6,))) as lab:
        pod = lab.pod("pod-1")
        assert list(pod.addresses) == [6]
        assert http_get(lab.client("outside"), pod.address(6), 8080).pod == "pod-1"


@both_families
def test_a_client_with_an_external_address_serves(family: Family) -> None:
    web = Client("web", "13.250.94.254", "2001:db8::1", via="n2", ports=(Port("http", 80),))
    topology = multi(2, 1)
    with Lab(replace(topology, clients=(*topology.clients, web))) as lab:
        there = lab.client("web").address(family)
        for asker in (lab.pod("n1-pod-1"), lab.pod("n2-pod-1"), lab.node("n1"), lab.client("outside")):
            reply = http_get(asker, there, 80)
            assert (reply.pod, reply.client) == ("web", asker.address(family))


@both_families
def test_a_client_that_routes_via_the_lan_reaches_only_nodes(family: Family) -> None:
    topology = single(1)
    lan_client = Client("neighbour", "192.168.77.201", "fd77::201", via="lan")
    with Lab(replace(topology, clients=(*topology.clients, lan_client))) as lab:
        assert echo(lab.client("neighbour"), lab.node("n1").address(family))
        assert not echo(lab.client("neighbour"), lab.pod("pod-1").address(family), timeout=0.2)
        assert echo(lab.client("outside"), lab.pod("pod-1").address(family))


# A running lab can change


def test_pods_can_be_stopped_and_replaced() -> None:
    with Lab(single(1)) as lab:
        node, address = lab.node("n1"), lab.pod("pod-1").address(4)
        lab.stop_pod("pod-1")
        assert http_get(node, address, 8080).outcome is Outcome.REFUSED
        assert many(node, address, 8080, 5) == {"refused": 5}
        assert echo(node, address)
        lab.start_pod("pod-1")
        assert http_get(node, address, 8080).pod == "pod-1"

        for _ in range(3):  # again, without a delay: the removed pod leaves nothing behind
            pod = lab.add_pod(lab_pod("a-pod-of-a-long-name", 1, 2, ports=(Port("http", 80),)))
            assert [http_get(node, pod.address(f), 80).pod for f in (4, 6)] == ["a-pod-of-a-long-name"] * 2
            lab.remove_pod("a-pod-of-a-long-name")
            assert not echo(node, pod.address(4), timeout=0.1)
        with pytest.raises(LookupError, match="no pod 'a-pod-of-a-long-name'; present: pod-1"):
            lab.pod("a-pod-of-a-long-name")


def test_a_stopped_pod_breaks_its_connections() -> None:
    with Lab(single(1)) as lab, Download(lab.node("n1"), lab.pod("pod-1").address(4), 8080) as download:
        lab.stop_pod("pod-1")
        assert download.rest().outcome is Outcome.RESET


def test_a_host_network_pod() -> None:
    with Lab(single(1)) as lab:
        lab.add_pod(Pod("agent", "n1", ports=(Port("http", 80), Port("echo", 53, "udp")), host_network=True))
        assert lab.pod("agent").netns == lab.node("n1").netns
        for family in (4, 6):
            address = lab.node("n1").address(family)
            assert lab.pod("agent").address(family) == address
            assert http_get(lab.pod("pod-1"), address, 80).pod == "agent"
            assert udp_ask(lab.client("outside"), address, 53).pod == "agent"
        lab.remove_pod("agent")
        assert http_get(lab.pod("pod-1"), lab.node("n1").address(4), 80).outcome is Outcome.REFUSED


# Handles


def test_the_caller_stays_in_its_namespace(lab: Lab) -> None:
    before = Path("/proc/thread-self/ns/net").readlink()
    with pytest.raises(ZeroDivisionError):
        lab.pod(KUBIA).inside(lambda: 1 // 0)
    with pytest.raises(OSError, match="not supported"):
        lab.pod(KUBIA).socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP)
    with pytest.raises(FileNotFoundError):
        lab.pod(KUBIA).run(["no-such-command"])
    assert lab.pod(KUBIA).inside(lambda: Path("/proc/thread-self/ns/net").readlink()) != before
    assert Path("/proc/thread-self/ns/net").readlink() == before


def test_run(lab: Lab) -> None:
    pod = lab.pod(KUBIA)
    shown = pod.run(["ip", "-br", "address", "show", "eth0"], capture_output=True, check=True)
    assert f"{pod.address(4)}/32 {pod.address(6)}/128" in shown.stdout
    by_ip = subprocess.run(
        ["ip", "netns", "exec", pod.netns, "readlink", "/proc/self/ns/net"], capture_output=True
    )
    assert by_ip.stdout == pod.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=False).stdout
    with pytest.raises(subprocess.TimeoutExpired):
        pod.run(["sleep", "9"], timeout=0.05)


# A pod has separate files and a separate environment


def shown(handle: Handle, *command: str, **options: Any) -> str:
    """Return the output of a command in a host."""
    return str(handle.run(command, stdout=subprocess.PIPE, check=True, **options).stdout)


def test_a_pod_has_its_own_var() -> None:
    with Lab(single(2)) as lab:
        mine, other, node = lab.pod("pod-1"), lab.pod("pod-2"), lab.node("n1")
        lab.add_pod(Pod("agent", "n1", host_network=True))
        name = f"of-{lab.id}"
        mine.run(["touch", f"/var/{name}"], check=True)
        assert shown(mine, "ls", "/var") == f"{name}\nrun\ntmp\n"
        assert mine.inside(Path("/var", name).exists)
        for elsewhere in (other, lab.pod("agent"), node):
            assert elsewhere.run(["test", "-e", f"/var/{name}"]).returncode == 1
        assert not Path("/var", name).exists()
        # All other files are the machine's, and the working directory is that of the caller.
        assert shown(mine, "pwd") == shown(node, "pwd")
        assert shown(mine, "pwd", cwd="/var/tmp") == "/var/tmp\n"
        # A pod that is added again has no files of the removed one.
        lab.remove_pod("pod-1")
        assert shown(lab.add_pod(lab_pod("pod-1", 1, 1)), "ls", "/var") == "run\ntmp\n"


def test_removing_a_host_network_pod_kills_only_its_processes() -> None:
    with Lab(single(1)) as lab:
        agent = lab.add_pod(Pod("agent", "n1", host_network=True))
        inside, outside = (handle.popen(["sleep", "60"]) for handle in (agent, lab.node("n1")))
        lab.remove_pod("agent")
        assert inside.wait(60) == -signal.SIGKILL
        assert outside.poll() is None


def test_nsenter_finds_a_pods_network_and_files() -> None:
    with Lab(single(1)) as lab:
        lab.pod("pod-1").run(["touch", "/var/ready"], check=True)
        enter = ["nsenter", f"--net=/run/netns/nl-{lab.id}-pod-1", f"--mount=/run/netns-lab/{lab.id}/pod-1"]
        subprocess.run([*enter, "ls", "/var/ready"], check=True, stdout=subprocess.DEVNULL)
        address = subprocess.run(
            [*enter, "ip", "-br", "address"], check=True, stdout=subprocess.PIPE, text=True
        )
        assert lab.pod("pod-1").address(4) in address.stdout


def test_a_pod_has_the_environment_of_its_start() -> None:
    with Lab(single(2)) as lab:
        before = lab.pod("pod-1")
        assert shown(before, "env", env={}) == ""
        lab.stop_pod("pod-1")
        lab.start_pod("pod-1", environment={"A": "1", "B": "two words = 2"})
        mine = lab.pod("pod-1")
        assert shown(mine, "env", env={}) == "A=1\nB=two words = 2\n"
        assert shown(mine, "env", env={"A": "mine"}) == "A=mine\nB=two words = 2\n"
        assert shown(mine, "sh", "-c", 'echo "$B $PATH"') == f"two words = 2 {os.environ['PATH']}\n"
        with mine.popen(["env"], env={}, stdout=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stdout.readline() == "A=1\n"
        assert shown(before, "env", env={}) == ""  # a handle from before the restart
        assert shown(lab.pod("pod-2"), "env", env={}) == ""
        lab.stop_pod("pod-1")
        lab.start_pod("pod-1")
        assert shown(lab.pod("pod-1"), "env", env={}) == "A=1\nB=two words = 2\n"
        new = lab.add_pod(lab_pod("pod-3", 1, 3), environment={"C": ""})
        assert shown(new, "env", env={}) == "C=\n"
        assert registry.load(lab.id).topology.pod("pod-1").environment == {"A": "1", "B": "two words = 2"}


@both_families
def test_a_server_on_localhost_answers_only_its_pod(family: Family) -> None:
    with Lab(chapter()) as lab:
        lab.remove_pod(KUBIA)
        pod = lab.add_pod(replace(chapter().pod(KUBIA), localhost_only=True))
        assert http_get(pod, LOCALHOST[family], 8080).pod == KUBIA
        assert http_get(pod, pod.address(family), 8080).outcome is Outcome.REFUSED
        assert http_get(lab.node("n1"), pod.address(family), 8080).outcome is Outcome.REFUSED
        assert echo(lab.node("n1"), pod.address(family))


def test_a_port_that_redirects_to_https() -> None:
    with Lab(single(1)) as lab:
        pod = lab.add_pod(lab_pod("pod-2", 1, 2, ports=(Port("http", 80, to_https=True),)))
        with lab.client("outside").socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.connect((pod.address(6), 80))
            sock.sendall(b"GET /a HTTP/1.0\r\nHost: an.example:80\r\n\r\n")
            answer = b"".join(iter(partial(sock.recv, 4096), b"")).decode()
        assert answer.splitlines()[0] == "HTTP/1.1 301 Moved Permanently"
        assert "Location: https://an.example/a" in answer.splitlines()
        reply = http_get(lab.node("n1"), pod.address(4), 80)
        assert (reply.pod, reply.status, reply.body) == ("pod-2", 301, "")
        assert reply.location == f"https://{pod.address(4)}/"


# Labs are independent, and leave nothing behind


def remains_of(lab: str) -> list[str]:
    """Return the namespaces, files, mounts and processes of a lab."""
    found = [str(path) for path in netns.RUN.glob(f"nl-{lab}-*")]
    found += [str(path) for path in registry.RUN.glob(f"{lab}.*")]
    found += [str(path) for path in registry.RUN.glob(f"{lab}/*")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if f" {registry.RUN}/{lab} " in line]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if f"netns_lab.serve {lab} " in command or f"sleep {int(lab, 36)}" in command:
            found.append(command)
    return found


def wait_for_remains(lab: str, number: int) -> list[str]:
    """Wait for `number` remains of a lab, for a minute: a process has no name during exec. Returns them."""
    deadline = time.monotonic() + 60
    while len(left := remains_of(lab)) != number and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def leave_a_process(lab: Lab) -> None:
    """Start two processes in a pod, which ``remains_of`` finds."""
    command = f"sleep {int(lab.id, 36)} & echo; wait"
    shell = lab.pod("pod-1").popen(["sh", "-c", command], stdout=subprocess.PIPE)
    assert shell.stdout
    with shell.stdout:
        shell.stdout.readline()


def test_two_labs_at_the_same_time() -> None:
    with Lab(single(1)) as first:
        with Lab(single(1)) as second:
            other = second.id
            assert first.id != other
            second.stop_pod("pod-1")
            address = first.pod("pod-1").address(4)
            assert http_get(first.node("n1"), address, 8080).pod == "pod-1"
            assert http_get(second.node("n1"), address, 8080).outcome is Outcome.REFUSED
        assert remains_of(other) == []
        assert http_get(first.node("n1"), address, 8080).pod == "pod-1"


def test_a_random_name_is_one_that_no_lab_has(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    free = f"n{os.getpid()}"
    names = iter([lab.id, lab.id, free])
    monkeypatch.setattr("netns_lab.registry.secrets.token_hex", lambda _: next(names))
    try:
        assert registry.reserve(lab.topology, None).id == free
    finally:
        registry.remove(free)


def test_an_exception_leaves_nothing() -> None:
    name = f"t{os.getpid()}"

    def fail() -> None:
        with Lab(single(2), name) as lab:
            leave_a_process(lab)
            # LAN, node, 2 pods, client; file; the files of 2 pods and their mount; server, sh, sleep
            assert len(wait_for_remains(name, 12)) == 12
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert remains_of(name) == []


def test_a_failed_start_leaves_nothing() -> None:
    name = f"t{os.getpid()}"
    taken = (Port("one", 80), Port("two", 80))
    with pytest.raises(RuntimeError, match="Address already in use"):
        Lab(single(1).with_pod(lab_pod("pod-2", 1, 2, ports=taken)), name).up()
    assert remains_of(name) == []


OWNER = """
import sys, time
from netns_lab.lab import Lab
from netns_lab.topology import single
from test_lab import leave_a_process
with Lab(single(1)) as lab:
    leave_a_process(lab)
    print(lab.id, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owned() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that runs a lab, and the id of the lab."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as owner:
        assert owner.stdout
        yield owner, owner.stdout.readline().strip()
        owner.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_nothing(owned: tuple[subprocess.Popen[str], str], number: signal.Signals) -> None:
    owner, lab = owned
    assert len(wait_for_remains(lab, 10)) == 10
    owner.send_signal(number)
    owner.wait()
    assert wait_for_remains(lab, 0) == []


def test_prune_removes_the_labs_of_dead_processes(owned: tuple[subprocess.Popen[str], str]) -> None:
    owner, lab = owned
    server = registry.load(lab).server
    assert server
    processes.kill(server.pid)
    registry.prune()
    assert remains_of(lab)  # the owner still runs
    owner.kill()
    owner.wait()
    registry.prune()  # or another lab that starts has done it already
    assert remains_of(lab) == []


def test_a_lab_of_another_version_does_not_disturb() -> None:
    with Lab(single(1)) as lab:
        file = registry.RUN / f"{lab.id}.json"
        mine = file.read_text()
        try:
            file.write_text(mine.replace('"pod_cidr_v4"', '"pod_range_v4"'))
            assert lab.id not in [record.id for record in registry.labs()]
            registry.prune()
            with Lab(single(1)) as other:
                assert other.id in [record.id for record in registry.labs()]
        finally:
            file.write_text(mine)


# The command netns-lab


def netns_lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "netns_lab", *arguments], capture_output=True, text=True)


def test_the_command() -> None:
    name = f"t{os.getpid()}"
    try:
        environment_of = "echo A={pod}@{node} $(grep -o podIP.: | wc -l); echo; echo B=' x=y'"
        up = netns_lab(
            *("up", "multi", "--name", name, "--nodes", "2", "--pods", "1"),
            *("--pod-environment", environment_of),
        )
        assert (up.returncode, up.stderr) == (0, "")
        assert up.stdout in netns_lab("list").stdout
        answer = netns_lab("exec", name, "outside", "--", "ip", "-4", "route", "get", "10.244.2.2")
        assert answer.stdout.startswith("10.244.2.2 via 192.168.77.11 dev eth0")
        assert netns_lab("exec", name, "n1-pod-1", "--", "sh", "-c", "exit 7").returncode == 7
        outside = Handle("outside", f"nl-{name}-outside", {4: "192.168.77.200"})
        assert http_get(outside, "10.244.2.2", 8080).pod == "n2-pod-1"
        environment = netns_lab("exec", name, "n1-pod-1", "--", "env").stdout.splitlines()
        assert {"A=n1-pod-1@n1 2", "B= x=y"} <= set(environment)
        assert "A=n2-pod-1@n2 2" in netns_lab("exec", name, "n2-pod-1", "--", "env").stdout.splitlines()
        assert not any(
            line.startswith("A=") for line in netns_lab("exec", name, "n1", "--", "env").stdout.splitlines()
        )
        assert netns_lab("exec", name, "n1-pod-1", "--", "touch", "/var/ready").returncode == 0
        assert netns_lab("exec", name, "n1-pod-1", "--", "ls", "/var/ready").stdout == "/var/ready\n"
        assert netns_lab("exec", name, "n2-pod-1", "--", "ls", "/var/ready").returncode == 2
        pods = json.loads(netns_lab("manifests", name).stdout)
        assert [pod["status"]["podIP"] for pod in pods["items"]] == ["10.244.1.2", "10.244.2.2"]

        for arguments, code, why in [
            (("up", "--name", name), 1, "exists already"),
            (("up", "--name", "A-b"), 1, "is not a name for a lab"),
            (("exec", name, "nix", "--", "ls"), 1, "no node, pod or client 'nix'; present: n1, n2"),
            (("exec", name, "n1", "--", "nix"), 1, "nix: No such file"),
            (("down", "nix"), 1, "no lab 'nix'"),
            (
                ("up", "--pod-environment", "exit 3"),
                1,
                "pod kubia-4bv25: exit status 3 of exit 3",
            ),
            (("up", "--pod-environment", "echo nothing"), 1, "'nothing' is not NAME=value"),
            (("up", "ring"), 2, "invalid choice"),
            (("down",), 2, "required"),
        ]:
            done = netns_lab(*arguments)
            assert (done.returncode, why in done.stderr) == (code, True), done.stderr
    finally:
        assert netns_lab("down", name).returncode == 0
    assert remains_of(name) == []
