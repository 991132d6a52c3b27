"""A HAProxy process on loopback with a `Configuration`."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from kproxy.gateway.core.configuration import Configuration, Server, with_servers
from tests.gateway.echo import Echo
from tests.support import eventually

OTHER = "192.0.2.1"
"""The address of servers whose port is the right one."""


def on_loopback(found: Configuration, port: int) -> Configuration:
    """Return it with servers on loopback: 127.1.0.N and `port` in place of 10.0.0.N and its port."""
    backends = {
        name: tuple(_moved(server, port) for server in servers) for name, servers in found.backends.items()
    }
    return replace(found, backends=backends)


def _moved(server: Server, port: int) -> Server:
    if server.address.startswith("10.0."):
        return replace(server, address=server.address.replace("10.0.", "127.1."), port=port)
    return replace(server, address="127.0.0.1") if server.address == OTHER else server


def write(found: Configuration, folder: Path) -> Path:
    """Write all files of a configuration. Returns its main file."""
    folder.mkdir(exist_ok=True)
    path = folder / "haproxy.cfg"
    path.write_text(with_servers(found.text, found.backends))
    for name, entries in found.maps.items():
        (folder / name).write_text("".join(f"{key} {value}\n" for key, value in entries))
    for name, content in {**found.files, **found.certificates}.items():
        (folder / name).write_bytes(content)
    for name, certificates in found.certificate_lists.items():
        lines = (f"{file} {' '.join(hosts)}\n" for file, hosts in certificates)
        (folder / name).write_text("".join(lines))
    return path


def check(path: Path) -> str:
    """Return what HAProxy says against a configuration, warnings included; "" if nothing.

    Without a certificate that can be used, it warns that connections to a port of TLS fail, as they must.
    """
    command = ["haproxy", "-c", "-f", path.name]  # with -q it would say nothing of errors, either
    result = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in result.stderr.splitlines() if not line.startswith("[NOTICE]")]
    said = [line for line in said if "no SSL certificate specified" not in line]
    return "\n".join(said) or ("" if result.returncode == 0 else f"exit status {result.returncode}")


class Running:
    """A HAProxy process, from `start` to `end`."""

    def __init__(self, path: Path) -> None:
        """`path`: its configuration file."""
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ports: Iterable[int]) -> None:
        """Start it, and wait until it takes connections on all ports."""
        command = ["haproxy", "-db", "-f", self._path.name]
        self._process = subprocess.Popen(command, cwd=self._path.parent, stderr=subprocess.PIPE)
        eventually(lambda: all(map(_accepts, ports)), self._log)

    def end(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def _log(self) -> str:
        assert self._process is not None
        assert self._process.stderr is not None
        return "" if self._process.poll() is None else self._process.stderr.read().decode()


@contextmanager
def serving(found: Configuration, folder: Path, ports: Iterable[int], pods: Echo) -> Iterator[None]:
    """Start the pods, and HAProxy in front of them with its files in `folder`, until the block ends."""
    with ExitStack() as stack:
        stack.callback(pods.end)
        pods.start()
        proxy = Running(write(on_loopback(found, pods.port), folder))
        stack.callback(proxy.end)
        proxy.start(ports)
        yield


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return False
    return True
