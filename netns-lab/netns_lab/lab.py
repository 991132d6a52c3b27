"""A running lab: creates the namespaces, links and servers of a topology, and returns handles to them.

    with Lab(chapter()) as lab:
        lab.pod("kubia-4bv25").run(["ip", "route"])
        lab.client("outside").socket(AF_INET, SOCK_STREAM)

At the end of the ``with`` block, the lab is removed: namespaces, processes and
files. If this process is killed, the lab's server cleans up (see ``registry``).
Labs are independent of each other, in one process or several.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from netns_lab import linux, mntns, netns, processes, registry, wire
from netns_lab.topology import LAN_GATEWAY, Client, Family, Host, Node, Pod, Topology

Result = TypeVar("Result")


class Started(Protocol):
    """A process that the lab kills at its end."""

    def kill(self) -> None: ...

    def wait(self) -> int: ...


@dataclass(frozen=True)
class Handle:
    """A node, pod or client of a running lab. A pod has separate files and a separate environment.

    A handle does not change: if a pod restarts with another environment, it needs a new handle.
    """

    name: str
    netns: str
    addresses: Mapping[Family, str]
    started: list[Started] = field(default_factory=list, repr=False)
    files: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def address(self, family: Family) -> str:
        return self.addresses[family]

    def inside(self, call: Callable[[], Result]) -> Result:
        """Run ``call`` in the namespace, in a separate thread. Returns or raises what ``call`` does."""

        def there() -> Result:
            netns.enter(self.netns)
            if self.files:
                mntns.enter(self.files)
            return call()

        return linux.in_a_thread(there)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Return a socket in the namespace."""
        return self.inside(partial(socket.socket, family, kind, protocol))

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Call ``subprocess.run`` in the namespace, with its options; text unless ``text=False``.

        The environment is that of the pod, added to ``env``, which by default is this process's environment.
        """
        return self.inside(partial(subprocess.run, argv, **self._options(options)))

    def popen(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Call ``subprocess.Popen`` likewise. The lab kills the process at its end."""
        process = self.inside(partial(subprocess.Popen[Any], argv, **self._options(options)))
        self.started.append(process)
        return process

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        own = {**os.environ, **self.environment}
        environment = {**self.environment, **options["env"]} if "env" in options else own
        return {"text": True, **options, "env": environment}


class Commands:
    """A connection to the lab's server process (``serve``)."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._answers = connection.makefile("r")

    def do(self, **command: Any) -> None:
        """Send a command and wait until it is done. Raises RuntimeError if it fails."""
        try:
            self._socket.sendall(json.dumps(command).encode() + b"\n")
            answer = self._answers.readline()
        except ConnectionError:
            answer = ""
        failure = json.loads(answer) if answer else "it has died"
        if failure is not None:
            raise RuntimeError(f"the lab's server: {failure}")

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


class Server(Commands):
    """The server process of a lab that this process owns. It exists from construction until ``reap``."""

    def __init__(self, lab: str) -> None:
        own, other = socket.socketpair()
        package = str(Path(__file__).resolve().parents[1])
        path = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-m", "netns_lab.serve", lab],  # without site-packages
                stdin=other.fileno(),
                stdout=other.fileno(),
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                start_new_session=True,  # signals of the terminal must not reach the server
            )
        super().__init__(own)
        self.process = registry.Process.find(self._process.pid)

    def reap(self) -> None:
        """Kill the process, if it still runs, and reap it."""
        self._process.kill()
        self._process.wait()
        self.close()


class Lab:
    """A running topology: from ``up`` to ``close``, or as a context manager."""

    def __init__(self, topology: Topology, name: str | None = None) -> None:
        self.topology = topology
        self._name = name
        self._record: registry.Record | None = None
        self._server: Server | None = None
        self._commands: Commands | None = None
        self._started: list[Started] = []

    def __enter__(self) -> "Lab":
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def id(self) -> str:
        return self._up.id

    def up(self) -> None:
        """Create the lab. Returns when all servers listen. Raises PermissionError without root."""
        if os.geteuid() != 0:
            raise PermissionError("a lab needs root, because it creates network namespaces")
        registry.prune()
        self._record = registry.reserve(self.topology, self._name)
        try:
            self._server = self._commands = Server(self.id)
            self._save(replace(self._up, server=self._server.process))
            self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the lab, if it is up."""
        if self._record is None:
            return
        for process in self._started:
            process.kill()
        registry.remove(self._record.id)
        for process in self._started:
            process.wait()
        if self._server:
            self._server.reap()
        self._record = self._server = self._commands = None
        self._started.clear()

    def detach(self) -> None:
        """Keep the lab, without an owner, until ``registry.remove`` is called with its id."""
        self._save(replace(self._up, owner=None))
        self._running.do(detach=True)
        self._record = self._server = self._commands = None

    def follow(self, follows: registry.Follows) -> None:
        """Record the manifests that the lab follows (``following``)."""
        self._save(replace(self._up, follows=follows))

    @property
    def record(self) -> registry.Record:
        return self._up

    def node(self, name: str) -> Handle:
        return self._handle(self.topology.node(name))

    def pod(self, name: str) -> Handle:
        pod = self.topology.pod(name)
        return replace(self._handle(pod), files=self._up.files(name), environment=pod.environment)

    def client(self, name: str) -> Handle:
        return self._handle(self.topology.client(name))

    def start_pod(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Start the servers of a stopped pod, with this environment or the previous one."""
        pod = self.topology.pod(name)
        if environment is not None:
            pod = replace(pod, environment=environment)
            self._save(replace(self._up, topology=self.topology.with_replaced(pod)))
        self._serve(pod)

    def stop_pod(self, name: str) -> None:
        """Close the pod's servers and their connections. Its network stays."""
        self._running.do(stop=self.topology.pod(name).name)

    def add_pod(self, pod: Pod, environment: Mapping[str, str] | None = None) -> Handle:
        """Add a pod. Returns when its servers listen. ``environment`` replaces the one in ``pod``."""
        if environment is not None:
            pod = replace(pod, environment=environment)
        self._save(replace(self._up, topology=self.topology.with_pod(pod)))
        self._make_pod(pod)
        self._serve(pod)
        return self.pod(pod.name)

    def remove_pod(self, name: str) -> None:
        """Remove a pod with its servers, processes, routes and namespace."""
        pod, files, namespace = self.topology.pod(name), self._up.files(name), self._up.namespace(name)
        self.stop_pod(name)
        processes.kill_inside([files] if pod.host_network else [files, netns.RUN / namespace])
        mntns.remove(files)
        if not pod.host_network:
            wire.part_pod(self._up.namespace(pod.node), name)
            netns.remove(namespace)
        self._save(replace(self._up, topology=self.topology.without_pod(name)))

    @classmethod
    @contextmanager
    def attached(cls, name: str) -> Iterator["Lab"]:
        """Change a detached lab. Other processes that want to change it wait until the block ends.

        Raises LookupError if there is no such lab, or if it belongs to a running process.
        """
        registry.load(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(str(registry.control(name)))
            except (FileNotFoundError, ConnectionRefusedError):
                raise LookupError(
                    f"the lab {name!r} belongs to a process, which alone can change it"
                ) from None
            commands = Commands(connection)
            commands.do(attach=True)
            record = registry.load(name)
            lab = cls(record.topology)
            lab._record, lab._commands = record, commands
            yield lab
            commands.close()

    @property
    def _up(self) -> registry.Record:
        if self._record is None:
            raise RuntimeError("this lab is not up")
        return self._record

    @property
    def _running(self) -> Commands:
        if self._commands is None:
            raise RuntimeError("this lab is not up")
        return self._commands

    def _save(self, record: registry.Record) -> None:
        registry.save(record)
        self._record, self.topology = record, record.topology

    def _handle(self, host: Host) -> Handle:
        addresses = self.topology.addresses(host)
        return Handle(host.name, self._up.namespace(host.name), addresses, self._started)

    def _build(self) -> None:
        topology, namespace = self.topology, self._up.namespace
        self._make_host("lan")
        wire.make_lan(namespace("lan"), topology.families)
        for node in topology.nodes:
            self._make_host(node.name, forwards=True)
            self._join_lan(node, LAN_GATEWAY)
        for node in topology.nodes:
            for other in topology.nodes:
                if other is not node:
                    wire.route_to(
                        namespace(node.name), topology.pod_cidrs(other), via=topology.addresses(other)
                    )
        for client in topology.clients:
            self._make_host(client.name)
            self._join_lan(client, topology.gateway(client))
            elsewhere = {f: own for f, own in topology.addresses(client).items() if not wire.on_lan(own)}
            for node in topology.nodes:
                wire.reach_on_lan(namespace(node.name), elsewhere)
        for pod in topology.pods:
            self._make_pod(pod)
        servers: tuple[Pod | Client, ...] = (*topology.pods, *topology.clients)
        for server in servers:
            self._serve(server)

    def _make_host(self, name: str, forwards: bool = False) -> None:
        namespace = self._up.namespace(name)
        netns.create(namespace)
        wire.set_up_host(namespace, self.topology.families, forwards)

    def _join_lan(self, host: Node | Client, default_via: wire.Addresses) -> None:
        namespace = self._up.namespace
        addresses = self.topology.addresses(host)
        wire.join_lan(namespace(host.name), namespace("lan"), host.name, addresses, default_via)

    def _make_pod(self, pod: Pod) -> None:
        mntns.create(self._up.files(pod.name), pod.resolv_conf)
        if not pod.host_network:
            self._make_host(pod.name)
            namespace = self._up.namespace
            wire.join_pod(namespace(pod.node), namespace(pod.name), pod.name, self.topology.addresses(pod))

    def _serve(self, host: Pod | Client) -> None:
        self._running.do(
            serve={
                "pod": host.name,
                "namespace": self._up.namespace(host.name),
                "addresses": self.topology.listens_on(host),
                "ports": [asdict(port) for port in host.ports],
            }
        )
