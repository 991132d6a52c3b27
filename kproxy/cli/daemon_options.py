"""Flags of the daemon about itself, and its configuration file; kube-proxy's names and defaults."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec

from kproxy.observe.core.health import MAX_SILENCE_SECONDS
from kproxy.observe.listen import ListenAddresses
from kproxy.problems import Problem, UsageError
from kproxy.settings.kubeproxy import (
    HEALTHZ_PORT,
    METRICS_PORT,
    Configuration,
    decode_configuration,
    duration,
)
from kproxy.settings.socket_address import SocketAddress, parse_socket_address
from kproxy.sources.files import parse, read_documents

UNSAID = SocketAddress("", 0)
"""An address that was not given, which is not the same as none."""
CONFIG_KEY = "config.conf"
"""Where kubeadm's ConfigMap kube-system/kube-proxy has the configuration."""


def bind_address(text: str) -> SocketAddress | None:
    """`ADDRESS:PORT`, or "" (None)."""
    try:
        return parse_socket_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """A duration as Go writes it (`1m30s`), or plain seconds."""
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def listen(arguments: argparse.Namespace) -> ListenAddresses:
    """Where what is served."""
    healthz = arguments.healthz_bind_address
    if healthz is UNSAID:
        healthz = SocketAddress("127.0.0.1" if arguments.manifests else "0.0.0.0", HEALTHZ_PORT)
    return ListenAddresses(
        healthz, arguments.metrics_bind_address, arguments.endpoint_metrics, arguments.max_silence
    )


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
        default=UNSAID,
        help=f'where /healthz and /livez are served, "" for nowhere (default: 0.0.0.0:{HEALTHZ_PORT}, both '
        f"families; with --manifests 127.0.0.1:{HEALTHZ_PORT})",
    )
    group.add_argument(
        "--metrics-bind-address",
        metavar="IP:PORT",
        type=bind_address,
        default=f"127.0.0.1:{METRICS_PORT}",
        help='where /metrics is served, "" for nowhere (default: %(default)s)',
    )
    group.add_argument(
        "--max-silence",
        metavar="DURATION",
        type=seconds,
        default=MAX_SILENCE_SECONDS,
        help="/healthz fails when the API server has not been heard for so long, 0s for never (default: 10m)",
    )
    group.add_argument(
        "--endpoint-metrics",
        action="store_true",
        help="count connections by endpoint, too: a series for each endpoint of each service port",
    )
    group.add_argument(
        "--sync-period",
        metavar="DURATION",
        type=seconds,
        default=300.0,
        help="compare the tables as a whole so often, if others changed any (default: 5m); what they do "
        "to ours is seen at once",
    )
    group.add_argument(
        "--min-sync-period",
        metavar="DURATION",
        type=seconds,
        default=0.0,
        help="from one round of changes to the next (default: 0s); those between are one round",
    )
    group.add_argument("-v", "--verbose", action="store_true", help="log every change, however many")


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
    data = loaded.get("data")
    held = data.get(CONFIG_KEY) if isinstance(data, dict) else None
    if not isinstance(held, str):
        raise UsageError(f"{path}: the ConfigMap has no data of the key {CONFIG_KEY}.")
    document = next(parse(f"{path}: {CONFIG_KEY}", held.encode()), None)
    if isinstance(document, Problem):
        raise UsageError(str(document))
    return decode_configuration(document.content if document else None)
