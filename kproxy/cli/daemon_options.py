"""Flags of the daemon about itself, and its configuration file; kube-proxy's names and defaults."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from kproxy.daemon.configuration import (
    HEALTHZ_PORT,
    METRICS_PORT,
    Configuration,
    decode_configuration,
)
from kproxy.daemon.socket_address import SocketAddress, parse_socket_address
from kproxy.problems import Problem, UsageError
from kproxy.sources.files import parse, read_documents

CONFIG_KEY = "config.conf"
"""Where kubeadm's ConfigMap kube-system/kube-proxy has the configuration."""


def bind_address(text: str) -> SocketAddress | None:
    """`ADDRESS:PORT`, or "" (None)."""
    try:
        return parse_socket_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def add_daemon(parser: argparse.ArgumentParser) -> None:
    """What the daemon says of itself, and where; and the file that has flags' defaults."""
    group = parser.add_argument_group("daemon")
    group.add_argument(
        "--config",
        metavar="FILE",
        help="a KubeProxyConfiguration, or the ConfigMap that holds one; flags that are given win",
    )
    group.add_argument(
        "--healthz-bind-address",
        metavar="IP:PORT",
        type=bind_address,
        default=f"0.0.0.0:{HEALTHZ_PORT}",
        help='where /healthz and /livez are served, "" for nowhere (default: %(default)s, both families)',
    )
    group.add_argument(
        "--metrics-bind-address",
        metavar="IP:PORT",
        type=bind_address,
        default=f"127.0.0.1:{METRICS_PORT}",
        help='where /metrics is served, "" for nowhere (default: %(default)s)',
    )


def read_configuration(path: str) -> tuple[dict[str, Any], list[str]]:
    """Defaults for `parser.set_defaults`, and warnings; UsageError names every field that is wrong."""
    documents, problems = read_documents([path])
    if problems:
        raise UsageError(str(problems[0]))
    if len(documents) != 1:
        raise UsageError(f"{path}: has {len(documents)} documents; one KubeProxyConfiguration is expected.")
    found = _decode(path, documents[0].content)
    if found.problems:
        raise UsageError(f"{path}: {'; '.join(found.problems)}")
    return found.defaults, [f"{path}: {warning}" for warning in found.warnings]


def _decode(path: str, content: Any) -> Configuration:
    loaded = msgspec.json.decode(content) if isinstance(content, msgspec.Raw) else content
    if not isinstance(loaded, dict) or loaded.get("kind") != "ConfigMap":
        return decode_configuration(loaded)
    held = (loaded.get("data") or {}).get(CONFIG_KEY)
    if not isinstance(held, str):
        raise UsageError(f"{path}: the ConfigMap has no data of the key {CONFIG_KEY}.")
    document = next(parse(f"{path}: {CONFIG_KEY}", held.encode()), None)
    if isinstance(document, Problem):
        raise UsageError(str(document))
    return decode_configuration(document.content if document else None)
