"""A kproxy under attack, and what must hold meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, Any, NamedTuple

from netns_lab.lab import Handle, Lab
from netns_lab.probe import Outcome, http_get

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.table.layout import SetName
from tests.adversary import parties
from tests.adversary.attacks import Answers, Attack, File, Queries, Replies, Requests, Responses
from tests.apiserver.faults import Answer, Flood
from tests.apiserver.kubeconfig import write_kubeconfig
from tests.stories.doubled import external_api, in_default
from tests.support import Manifest, Process, Running, eventually, service

IN_TIME = 2.0
"""Seconds until the change of the canary must be in the kernel, and until /livez must answer.

Those in which kproxy, this process and the kernel wait for a CPU do not count, since other programs need it.
"""
MEMORY, MEMORY_OF_LIST = 64 << 10, 256 << 10
"""KiB by which kproxy may grow, also if it receives a list of an API server."""
LOG, LOG_OF_POD = 64 << 10, 2 << 10
"""Bytes that one attack may add to the log, and that each pod may add."""
KERNEL_THREADS = Path("/proc/2/task/2/children")
FILES = 1024
STUCK = 300.0
"""Seconds until something counts as stuck, whatever else runs on the machine."""
SLICES = "endpointslices"
HEALTHZ, METRICS = 10256, 10249
DNS, CANARY = "10.96.0.10", "canary.default.svc.cluster.local"
CANARIES = 1000
"""The number of its addresses. None of them is one that kproxy allocates for a Service of an attack."""
CHECKS = range(30900, 30906)
"""Health check node ports."""


class Use(NamedTuple):
    """What kproxy uses."""

    memory: int
    """The memory in KiB, or the peak of it."""
    log: int
    """Bytes."""


class Took(NamedTuple):
    """How long something took, in seconds."""

    seconds: float
    waited: float
    """Seconds in which threads of kproxy, this process and the kernel could have run, and had no CPU."""


def _waits(*pids: int) -> dict[Path, int]:
    """Return for how long threads have waited for a CPU so far, in ns: those of processes and of the kernel.

    Threads of the kernel write to the disk, and end what others wait for (RCU).
    """
    found = {}
    threads = [thread for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    with suppress(FileNotFoundError):  # a container does not see them
        threads += [Path("/proc") / pid for pid in KERNEL_THREADS.read_text().split()]
    for thread in threads:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found[thread] = int((thread / "schedstat").read_text().split()[1])
    return found


class Limited(Running):
    """`kproxy run` with systemd's default limit of open files."""

    program = "kproxy"

    def launch(self, log: IO[str]) -> Process:
        python = ["prlimit", f"--nofile={FILES}:{FILES}", sys.executable]
        command = [*python, "-m", self.program, *self.arguments()]
        return self.kproxy.node.popen(command, stdout=log, stderr=log)


class Siege(ABC):
    """A running kproxy. Use `close` at the end."""

    def __init__(self, lab: Lab, folder: Path, flags: Sequence[str], program: str = "kproxy") -> None:
        self.lab, self.folder = lab, folder
        self.node = lab.node("n1")
        self.running = Limited(self.node, folder, flags)
        self.running.program = program
        self.running.start()
        self._netlink = self.node.inside(Netlink)
        self._canaries = self._pods = self._last_pods = 0
        self._change_canary()
        self.before = self._use()

    def close(self) -> None:
        """End kproxy, which must end at SIGTERM."""
        self._netlink.close()
        assert self.running.stop() == 0

    @abstractmethod
    def _apply(self, manifest: Manifest) -> None:
        """Create or replace an object."""

    @abstractmethod
    def _under(self, attack: Any) -> AbstractContextManager[None]:
        """Attack during the block."""

    @contextmanager
    def under(self, attack: Attack) -> Iterator[None]:
        """Attack during the block."""
        self._forget_peak()
        self.before = self._use(peak=False)
        pods = attack.pods if isinstance(attack, Answers) else 0
        self._pods = pods + self._last_pods  # kproxy may still log about the pods of the last attack
        self._last_pods = pods
        with self._under(attack):
            yield

    def holds(self, attack: Attack) -> None:
        """Check that kproxy lives and takes in changes, and that it stays small."""
        for act in (self._change_canary, self._ask_livez):
            took = self._timed(act)
            assert took.seconds - took.waited < IN_TIME, f"{took}\n{self._why()}"
        after = self._use()
        memory = MEMORY_OF_LIST if isinstance(attack, Responses) else MEMORY
        assert after.memory < self.before.memory + memory, f"{self.before} -> {after}"
        assert after.log < self.before.log + LOG + LOG_OF_POD * self._pods, self._why()

    def _timed(self, act: Callable[[], None]) -> Took:
        """Do something, and return how long it took."""
        pids = self.running.process.pid, os.getpid()
        before, begun = _waits(*pids), time.monotonic()
        act()
        took, after = time.monotonic() - begun, _waits(*pids)
        return Took(took, sum(after[thread] - before.get(thread, 0) for thread in after) / 1e9)

    def _change_canary(self) -> None:
        """Give a Service a new address, and wait until it is in the kernel."""
        self._canaries = self._canaries % CANARIES + 1
        self.address = IPv4Address("10.96.128.0") + self._canaries
        self._apply(service("canary", families=(4,), cluster_ips={4: str(self.address)}))
        eventually(lambda: self._is_programmed(self.address), self._why, STUCK)

    def _ask_livez(self) -> None:
        livez = http_get(self.node, "127.0.0.1", HEALTHZ, STUCK, path="/livez")
        assert livez.outcome is Outcome.ANSWERED, livez

    def _is_programmed(self, address: IPv4Address) -> bool:
        assert self.running.process.poll() is None, self._why()
        elements = self._netlink.elements(Family.IPV4, SetName.SERVICES)
        return any(address.packed in bytes(element) for element in elements)

    def memory(self) -> int:
        """Return the memory in KiB that kproxy uses now."""
        return self._use(peak=False).memory

    def files(self) -> int:
        """Return the number of files and sockets that kproxy has open now."""
        return len(list(Path(f"/proc/{self.running.process.pid}/fd").iterdir()))

    def _use(self, peak: bool = True) -> Use:
        status = Path(f"/proc/{self.running.process.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:" if peak else "VmRSS:")]
        return Use(int(line.split()[1]), self.running.log.stat().st_size)

    def _forget_peak(self) -> None:
        Path(f"/proc/{self.running.process.pid}/clear_refs").write_text("5")

    def _why(self) -> str:
        return self.running.logged()[-3000:]


class OfFolder(Siege):
    """kproxy follows a folder of manifests. It has an evil pod and evil clients."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        pod = lab.pod("pod-1")
        flags = ["--healthz-bind-address", f"0.0.0.0:{HEALTHZ}", "--status-page"]
        upstream = ["--upstream", f"{pod.address(4)}:{parties.UPSTREAM_PORT}"]
        super().__init__(lab, folder, [*flags, *upstream])
        self.running.write("bystanders", *map(_bystander, CHECKS))
        self._server = pod.popen([*_PARTIES, "serve", pod.address(4), str(folder)])
        eventually((folder / "serving").exists)

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        super().close()

    def _apply(self, manifest: Manifest) -> None:
        self.running.write("canary", manifest)

    @contextmanager
    def _under(self, attack: Answers | Requests | Queries | Replies | File) -> Iterator[None]:
        match attack:
            case Answers():
                self._probe(attack)
                yield
                (self.running.manifests / "attack.json").unlink()
            case Requests():
                with self._clients(attack):
                    yield
            case Queries():
                with self._queries(attack.name, attack.outside):
                    yield
            case Replies():
                (self.folder / "upstream").write_text(attack.name)
                with self._queries("other-names-of-a-pod"):
                    eventually((self.folder / attack.name).exists, self._why)
                    yield
            case File(content=content):
                file = self.running.manifests / attack.file
                file.with_name(".attack").write_bytes(content)
                file.with_name(".attack").rename(file)
                eventually(lambda: attack.says in self.running.logged()[self.before.log :], self._why)
                yield
                ended = len(self.running.logged())
                file.unlink()
                if attack.says:  # the next file may cause the same problems
                    eventually(lambda: "solved" in self.running.logged()[ended:], self._why)

    def _probe(self, attack: Answers) -> None:
        """Let the evil pod's probes request the attack."""
        (self.folder / "raw").write_text(attack.name)
        pods = [self._pod(f"evil-{number}", attack) for number in range(attack.pods)]
        self.running.write("attack", *pods)
        if "host" not in attack.probe:
            eventually((self.folder / attack.name).exists, self._why)

    def _pod(self, name: str, attack: Answers) -> Manifest:
        port = {"": parties.PORT, "after": parties.TLS_PORT, "instead": parties.RAW_PORT}[attack.tls]
        action = {"port": port, "path": f"/{attack.name}", **attack.probe}
        text = json.dumps(action).replace("{pod}", name)
        probe = {"periodSeconds": 1, "httpGet": json.loads(text)}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [{"name": "c", "readinessProbe": probe}]},
            "status": {"podIP": self.lab.pod("pod-1").address(4)},
        }

    @contextmanager
    def _clients(self, attack: Requests) -> Iterator[None]:
        outside, address = self.lab.client("outside"), self.node.address(4)
        where, to = {
            "healthz": (outside, f"{address}:{HEALTHZ}"),
            "services": (outside, ",".join(f"{address}:{port}" for port in CHECKS)),
            "metrics": (self.node, f"127.0.0.1:{METRICS}"),
            "control": (self.node, str(self.running.kproxy.state / "kproxy.sock")),
            "dns": (self.lab.pod("pod-1"), f"{DNS}:53"),
        }[attack.to]
        with self._party(where, "attack", attack.name, to):
            yield

    def _queries(self, name: str, outside: bool = False) -> AbstractContextManager[None]:
        where = self.lab.client("outside") if outside else self.lab.pod("pod-1")
        return self._party(where, "query", name, f"{DNS}:53")

    @contextmanager
    def _party(self, where: Handle, *arguments: str) -> Iterator[None]:
        """Run clients until the end of the block, which begins when they are at work."""
        clients = where.popen([*_PARTIES, *arguments], stdout=subprocess.PIPE)
        try:
            assert clients.stdout
            clients.stdout.readline()
            yield
        finally:
            clients.kill()
            clients.communicate()

    def holds(self, attack: Attack) -> None:
        """Check also that the canary's name is answered with its new address, over UDP and TCP."""
        super().holds(attack)
        for protocol in ("+notcp", "+tcp"):
            command = ["dig", "+short", "+tries=5", "+time=2", protocol, f"@{DNS}", CANARY]
            eventually(lambda command=command: self._asked(command) == f"{self.address}\n", self._why)  # type: ignore[misc]

    def _asked(self, command: Sequence[str]) -> str:
        return str(self.lab.pod("pod-1").run(command, capture_output=True).stdout)


class OfCluster(Siege):
    """kproxy follows an evil API server."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.api = external_api(lab)
        self.api.__enter__()
        self.api.streams = False  # attacks answer requests for lists
        self.api.apply(*in_default(*map(_bystander, CHECKS)))
        config = write_kubeconfig(folder / "kubeconfig", self.api.url, {})
        super().__init__(lab, folder, ["--kubeconfig", str(config)], "tests.adversary.impatient")

    def close(self) -> None:
        super().close()
        self.api.__exit__(None, None, None)

    def _apply(self, manifest: Manifest) -> None:
        self.api.apply(*in_default(manifest))

    @contextmanager
    def _under(self, attack: Responses) -> Iterator[None]:
        api = self.api
        api.wait(lambda: api.watches.of(SLICES), STUCK)
        asked = len(api.requests(verb=attack.to, resource=SLICES))
        if attack.to == "list":
            asked += 1
            api.faults.add(Answer(410), resource=SLICES)  # kproxy must list everything again
        flood = Flood(attack.head, attack.part, attack.pause)
        api.faults.add(flood, verb=attack.to, resource=SLICES, times=None)
        api.watches.reset(SLICES)
        api.wait(lambda: len(api.requests(verb=attack.to, resource=SLICES)) > asked, STUCK)
        yield
        api.faults.clear()


def _bystander(port: int) -> Manifest:
    """Return a Service with a health check node port."""
    return service(
        f"bystander-{port}",
        families=(4,),
        cluster_ips={4: f"10.96.127.{port % 100}"},
        type="LoadBalancer",
        externalTrafficPolicy="Local",
        healthCheckNodePort=port,
    )


_PARTIES = (sys.executable, "-m", "tests.adversary.parties")
