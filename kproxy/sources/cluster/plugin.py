"""Runs the credential plugin of a kubeconfig (exec), with the protocol of client.authentication.k8s.io.

A plugin has no terminal, and a limited time: without credentials kproxy cannot follow the cluster.
"""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from kproxy.decode.text import from_json
from kproxy.limits import PLUGIN_SECONDS
from kproxy.sources.cluster.core.kubeconfig import Cluster, Exec, KubeconfigError

EARLY = timedelta(minutes=5)
"""How long before they expire credentials are renewed."""
CONFIG = "client.authentication.k8s.io/exec"
"""The extension of a cluster that is meant for plugins."""


class Credential(Struct, rename="camel"):
    """What a plugin returned."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None

    def expires_soon(self) -> bool:
        """Whether the plugin has to run again."""
        expires = self.expiration_timestamp
        return expires is not None and _aware(expires) - EARLY < datetime.now(UTC)


class _Output(Struct, rename="camel"):
    api_version: str
    status: Credential


def run(plugin: Exec, cluster: Cluster, authority: bytes | None, folder: Path) -> Credential:
    """Run a plugin of a kubeconfig in `folder`. Raises KubeconfigError.

    `authority` is the certificate authority of the cluster, as PEM.
    """
    command = str(folder / plugin.command) if "/" in plugin.command else plugin.command
    environment = {**os.environ, **{each.name: each.value for each in plugin.env or ()}}
    environment["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(_request(plugin, cluster, authority)).decode()
    try:
        done = subprocess.run(
            [command, *(plugin.args or ())],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            cwd=folder,
            timeout=PLUGIN_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise KubeconfigError(f"exec: {command}: {getattr(error, 'strerror', None) or error}") from None
    if done.returncode:
        why = " ".join(done.stderr.decode(errors="replace").split())
        raise KubeconfigError(f"exec: {command}: exit status {done.returncode}{why and f': {why}'}")
    return _credential(plugin, command, done.stdout)


def _request(plugin: Exec, cluster: Cluster, authority: bytes | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.provide_cluster_info:
        config = next((each.extension for each in cluster.extensions or () if each.name == CONFIG), None)
        spec["cluster"] = {
            "server": cluster.server,
            **({"tls-server-name": cluster.tls_server_name} if cluster.tls_server_name else {}),
            **({"insecure-skip-tls-verify": True} if cluster.insecure_skip_tls_verify else {}),
            **({"certificate-authority-data": authority} if authority else {}),
            **({"proxy-url": cluster.proxy_url} if cluster.proxy_url else {}),
            **({"config": config} if config is not None else {}),
        }
    return {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}


def _credential(plugin: Exec, command: str, output: bytes) -> Credential:
    try:
        found = from_json(output, _Output)
    except msgspec.DecodeError as error:
        raise KubeconfigError(f"exec: {command}: its output is invalid: {error}") from None
    if found.api_version != plugin.api_version:
        version = f"{found.api_version}, not {plugin.api_version}"
        raise KubeconfigError(f"exec: {command}: its output has apiVersion {version}")
    status = found.status
    if not status.token and not (status.client_certificate_data and status.client_key_data):
        raise KubeconfigError(
            f"exec: {command}: its output has neither a token nor a certificate with its key"
        )
    return status


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
