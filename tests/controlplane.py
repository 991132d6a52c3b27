"""etcd and kube-apiserver as processes of the tests' own: on loopback, and gone with the tests.

Their binaries are looked for where `KUBEBUILDER_ASSETS` says, as controller-runtime's envtest does.
There is no controller and no node: what is in the cluster is what a story writes. kproxy is a user that
may do what deploy/daemonset.yaml says, and nothing else.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.apiserver.client import Client
from tests.apiserver.kubeconfig import token, token_file, write_kubeconfig
from tests.support import SERVICE_CIDRS

DAEMONSET = Path(__file__).parents[1] / "deploy" / "daemonset.yaml"
ADMIN = "admin"
USER = "system:serviceaccount:kube-system:kproxy"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NOT_OURS = "needs the API server's process: make test-cluster KUBEBUILDER_ASSETS=DIR"
"""Why something is skipped in a cluster that was there before."""
PATIENCE = 60.0
"""Seconds for a start: two or three, on a machine with nothing else to do."""
QUORUM_KEY = base64.b64encode(b"compact_rev_key").decode()


class Cluster(NamedTuple):
    """A real API server: one that is there, or one of the tests' own."""

    kubeconfig: Path
    """Of a user who may write what tests write."""
    control_plane: ControlPlane | None = None


class ControlPlane:
    """Both processes, from `with` to its end; their data is in `folder`."""

    def __init__(self, assets: Path, folder: Path) -> None:
        self._assets, self._folder = assets, folder
        self._etcd_port, self._peer_port, self.port = _free_ports(3)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kubeconfig = folder / "admin.conf"
        """Who may do everything."""
        self.token = "kproxy"
        """What kproxy shows."""

    def __enter__(self) -> ControlPlane:
        key = str(self._folder / "sa.key")
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        with ExitStack() as stack:
            stack.callback(self.close)
            self.start()
            stack.pop_all()
        write_kubeconfig(
            self.kubeconfig, self._url, token(ADMIN), ca=self._folder / "certificates" / "apiserver.crt"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what runs. What is in memory is lost, as in a crash."""
        self._kill("kube-apiserver")
        self._kill("etcd")

    def user(self, folder: Path) -> tuple[Path, Path]:
        """kproxy's kubeconfig, written to `folder`, and the file with its token."""
        file = folder / "token"
        file.write_text(self.token)
        ca = self._folder / "certificates" / "apiserver.crt"
        return write_kubeconfig(folder / "user.conf", self._url, token_file(file), ca=ca), file

    # The processes

    def start(self) -> None:
        """What does not run yet; returns when it serves and kproxy may use it."""
        if "etcd" not in self._processes:
            self._start_etcd()
        self._start_apiserver()

    def kill(self) -> None:
        """kube-apiserver alone, at once."""
        self._kill("kube-apiserver")

    def restart(self) -> None:
        """kube-apiserver alone."""
        self.kill()
        self.start()

    def upgrade(self) -> None:
        """The same, but it is asked to end, and ends its watches."""
        self._processes["kube-apiserver"].terminate()
        self._processes["kube-apiserver"].wait(PATIENCE)
        self.start()

    def rotate(self, value: str) -> None:
        """Another token for kproxy; this takes a restart."""
        self.token = value
        self.restart()

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        self._spawn(
            "etcd",
            *("--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
        )
        self._until("etcd", lambda: self._etcd("kv/range", key=QUORUM_KEY))

    def _start_apiserver(self) -> None:
        tokens, key = self._folder / "tokens.csv", str(self._folder / "sa.key")
        tokens.write_text(
            f'{ADMIN},{ADMIN},{ADMIN},"system:masters"\n{self.token},{USER},{USER},"system:serviceaccounts"\n'
        )
        self._spawn(
            "kube-apiserver",
            *("--etcd-servers", f"http://127.0.0.1:{self._etcd_port}"),
            *("--bind-address", "127.0.0.1", "--secure-port", str(self.port)),
            *("--advertise-address", "192.0.2.1", "--endpoint-reconciler-type", "none"),
            *("--cert-dir", str(self._folder / "certificates")),
            *("--service-cluster-ip-range", SERVICE_CIDRS),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", key, "--service-account-signing-key-file", key),
            "--shutdown-watch-termination-grace-period=1s",  # without, its end takes a minute
            *("--authorization-mode", "RBAC", "--token-auth-file", str(tokens)),
        )
        self._until("kube-apiserver", self._ready)

    def _ready(self) -> bool:
        with self.client() as client:
            return client.get("/readyz").status == 200 and self.allow()

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            # With the tests' process its own ends, too, however that ended.
            command = ["setpriv", "--pdeathsig", "KILL", str(self._assets / name), *arguments]
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _kill(self, name: str) -> None:
        if process := self._processes.pop(name, None):
            process.kill()
            process.wait()

    def _until(self, name: str, ready: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError, HTTPException):
                if ready():
                    return
            log = self._folder / f"{name}.log"
            last = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            assert self._processes[name].poll() is None, f"{name} ended:\n{last}"
            assert time.monotonic() < end, f"{name} is not ready:\n{last}"
            time.sleep(0.05)

    # What is in them

    @property
    def _url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self) -> Client:
        """A client that may do everything."""
        ca = self._folder / "certificates" / "apiserver.crt"
        return Client(self._url, token=ADMIN, context=ssl.create_default_context(cafile=str(ca)))

    def allow(self) -> bool:
        """Let kproxy do what deploy/daemonset.yaml says; whether that is done."""
        done = []
        with self.client() as client, DAEMONSET.open() as file:
            for manifest in yaml.safe_load_all(file):
                if manifest["kind"].startswith("ClusterRole"):
                    path = f"{RBAC}/{manifest['kind'].lower()}s"
                    done.append(client.ask("POST", path, manifest).status in (201, 409))
        return len(done) == 2 and all(done)

    def forbid(self) -> None:
        """It may do nothing any more."""
        with self.client() as client:
            answer = client.ask("DELETE", f"{RBAC}/clusterrolebindings/kproxy")
            assert answer.status == 200, answer.body

    def compact(self) -> None:
        """etcd forgets all history, and kube-apiserver starts again."""
        self.kill()
        revision = self._etcd("kv/range", key=QUORUM_KEY)["header"]["revision"]
        self._etcd("kv/compaction", revision=revision, physical=True)
        self.start()

    def backup(self, to: Path) -> Path:
        """etcd's data as they are now, copied to a folder that is not there yet."""
        etcd = self._processes["etcd"]
        etcd.send_signal(signal.SIGSTOP)  # what a copy finds then is what a crash would leave
        os.waitid(os.P_PID, etcd.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            return shutil.copytree(self._folder / "etcd", to)
        finally:
            etcd.send_signal(signal.SIGCONT)

    def restore(self, backup: Path | None) -> None:
        """Begin with the data of a backup, or with none."""
        self.close()
        shutil.rmtree(self._folder / "etcd")
        if backup:
            shutil.copytree(backup, self._folder / "etcd")
        self.start()

    def _etcd(self, what: str, **request: Any) -> Any:
        with Client(f"http://127.0.0.1:{self._etcd_port}") as client:
            answer = client.ask("POST", f"/v3/{what}", request)
            assert answer.status == 200, answer.body
            return answer.json


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]
