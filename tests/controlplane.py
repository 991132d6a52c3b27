"""etcd and kube-apiserver as processes of the tests: they listen on loopback and end with the tests.

`KUBEBUILDER_ASSETS` names the folder with the binaries, as for envtest of controller-runtime.
There is no controller and no node: the cluster contains what a story writes. kproxy has the rights in
deploy/daemonset.yaml and no others.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
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
from tests.ports import kept, number_of
from tests.support import SERVICE_CIDRS

DAEMONSET = Path(__file__).parents[1] / "deploy" / "daemonset.yaml"
ADMIN = "admin"
USER = "system:serviceaccount:kube-system:kproxy"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NEEDS_PROCESS = "needs the API server's process: make test-cluster KUBEBUILDER_ASSETS=DIR"
"""Why a test is skipped in a cluster that the tests did not start."""
PATIENCE = 60.0
"""Seconds for a start. An idle machine needs two or three."""
QUORUM_KEY = base64.b64encode(b"compact_rev_key").decode()


class Cluster(NamedTuple):
    """A real API server: an existing one, or one that the tests started."""

    kubeconfig: Path
    """Of a user who may write the objects of the tests."""
    control_plane: ControlPlane | None = None


class ControlPlane:
    """Both processes, until the end of the `with` block. Their data is in `folder`."""

    def __init__(self, assets: Path, folder: Path) -> None:
        self._assets, self._folder = assets, folder
        self._kept = [kept() for _ in range(3)]
        self._etcd_port, self._peer_port, self.port = map(number_of, self._kept)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kubeconfig = folder / "admin.conf"
        """Of a user with all rights."""
        self.token = "kproxy"
        """kproxy's token."""

    def __enter__(self) -> ControlPlane:
        key = str(self._folder / "sa.key")
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
        with ExitStack() as stack:
            stack.callback(self.close)
            self.start()
            stack.pop_all()
        self.write_kubeconfig(self.kubeconfig, self.port)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for each in self._kept:
            each.close()

    def close(self) -> None:
        """Kill the running processes. Data in memory is lost, as in a crash."""
        self._kill("kube-apiserver")
        self._kill("etcd")

    def user(self, folder: Path) -> tuple[Path, Path]:
        """Write kproxy's kubeconfig to `folder`. Returns its path and that of the file with the token."""
        file = folder / "token"
        file.write_text(self.token)
        user = token_file(file)
        return write_kubeconfig(folder / "user.conf", self._url, user, ca=self.certificate), file

    def write_kubeconfig(self, path: Path, port: int) -> None:
        """Write the kubeconfig of a user with all rights, for a relay on a port of 127.0.0.1."""
        write_kubeconfig(path, f"https://127.0.0.1:{port}", token(ADMIN), ca=self.certificate)

    # The processes

    @property
    def pid(self) -> int:
        """The process of kube-apiserver."""
        return self._processes["kube-apiserver"].pid

    def start(self) -> None:
        """Start the missing processes. Returns when the API server is ready and kproxy has its rights."""
        if "etcd" not in self._processes:
            self._start_etcd()
        self._start_apiserver()

    def kill(self) -> None:
        """Kill kube-apiserver only."""
        self._kill("kube-apiserver")

    def restart(self) -> None:
        """Kill and start kube-apiserver only."""
        self.kill()
        self.start()

    def upgrade(self) -> None:
        """Stop kube-apiserver, which ends its watches, and start it again."""
        self._processes["kube-apiserver"].terminate()
        self._processes["kube-apiserver"].wait(PATIENCE)
        self.start()

    def rotate(self, value: str) -> None:
        """Give kproxy another token. This needs a restart."""
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
            "--allow-privileged",  # as kubeadm sets it; the first container of the DaemonSet sets sysctls
            "--shutdown-watch-termination-grace-period=1s",  # the default delays the exit by a minute
            *("--authorization-mode", "RBAC", "--token-auth-file", str(tokens)),
        )
        self._until("kube-apiserver", self._ready)

    def _ready(self) -> bool:
        with self.client() as client:
            return client.get("/readyz").status == 200 and self.allow()

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            # The kernel kills the process when the tests' process ends, for any reason.
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

    # Their content

    @property
    def certificate(self) -> Path:
        """The server's certificate, which is valid for 127.0.0.1."""
        return self._folder / "certificates" / "apiserver.crt"

    @property
    def _url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def client(self) -> Client:
        """Return a client with all rights."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        return Client(self._url, token=ADMIN, context=context)

    def allow(self) -> bool:
        """Grant kproxy the rights in deploy/daemonset.yaml. Returns whether it has them."""
        done = []
        with self.client() as client, DAEMONSET.open() as file:
            for manifest in yaml.safe_load_all(file):
                if manifest["kind"].startswith("ClusterRole"):
                    path = f"{RBAC}/{manifest['kind'].lower()}s"
                    done.append(client.ask("POST", path, manifest).status in (201, 409))
        return len(done) == 2 and all(done)

    def forbid(self) -> None:
        """Remove all of kproxy's rights."""
        with self.client() as client:
            answer = client.ask("DELETE", f"{RBAC}/clusterrolebindings/kproxy")
            assert answer.status == 200, answer.body

    def compact(self) -> None:
        """Compact etcd, so that it has no history, and restart kube-apiserver."""
        self.kill()
        revision = self._etcd("kv/range", key=QUORUM_KEY)["header"]["revision"]
        self._etcd("kv/compaction", revision=revision, physical=True)
        self.start()

    def backup(self, to: Path) -> Path:
        """Copy etcd's present data to a folder that does not exist yet."""
        etcd = self._processes["etcd"]
        etcd.send_signal(signal.SIGSTOP)  # the copy then equals the state after a crash
        os.waitid(os.P_PID, etcd.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            return shutil.copytree(self._folder / "etcd", to)
        finally:
            etcd.send_signal(signal.SIGCONT)

    def restore(self, backup: Path | None) -> None:
        """Restart with the data of a backup, or with none."""
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
