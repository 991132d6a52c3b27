"""The files with which a client finds the server: kubeconfigs, and the files of a service account."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

from tests.apiserver.certificates import KeyPair

User = dict[str, Any]


def token(value: str) -> User:
    """A user with a bearer token."""
    return {"token": value}


def token_file(path: Path) -> User:
    """A user whose token is read from a file, which may change."""
    return {"tokenFile": str(path)}


def client_certificate(pair: KeyPair, *, inline: bool = False) -> User:
    """A user with a client certificate, as file names or as data."""
    if inline:
        return {"client-certificate-data": _data(pair.certificate), "client-key-data": _data(pair.key)}
    return {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}


def exec_plugin(folder: Path, value: str, *, expires: str | None = None) -> User:
    """A user whose credentials are the output of a command.

    The command prints the token in `folder/token`, which is `value` now, and adds a line to `folder/calls`.
    """
    (folder / "token").write_text(value)
    credential: dict[str, Any] = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "%s", **({"expirationTimestamp": expires} if expires else {})},
    }
    script = folder / "credentials.sh"
    script.write_text(
        f"#!/bin/sh\necho call >> '{folder}/calls'\n"
        f"printf '{json.dumps(credential)}\\n' \"$(cat '{folder}/token')\"\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": str(script),
            "args": [],
            "interactiveMode": "Never",
        }
    }


def write_kubeconfig(
    path: Path,
    url: str,
    user: User,
    *,
    ca: Path | None = None,
    inline: bool = False,
    proxy_url: str = "",
    insecure: bool = False,
    server_name: str = "",
) -> Path:
    """Write a kubeconfig with one context, as JSON (which is YAML). Returns `path`."""
    cluster: dict[str, Any] = {"server": url}
    if ca:
        cluster |= {"certificate-authority-data": _data(ca)} if inline else {"certificate-authority": str(ca)}
    if proxy_url:
        cluster["proxy-url"] = proxy_url
    if insecure:
        cluster["insecure-skip-tls-verify"] = True
    if server_name:
        cluster["tls-server-name"] = server_name
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "tester", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "tester"}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def write_in_cluster(folder: Path, ca: Path, value: str, host: str, port: int) -> dict[str, str]:
    """Write the files of a service account. Returns the environment variables of a pod."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(value)
    (folder / "ca.crt").write_bytes(ca.read_bytes())
    (folder / "namespace").write_text("kube-system")
    return {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)}


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
