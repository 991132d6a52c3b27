"""The flags of kube-proxy 1.36 that kproxy itself does not have. `run` accepts all of them.

So a DaemonSet or a unit that started kube-proxy can start kproxy with the same flags. A flag with a meaning
for kproxy sets a field of Settings, unless kproxy's flag for this field is set. For any other flag, kproxy
prints a line that explains why it has no effect. Flags of klog that were removed from kube-proxy before 1.36
are also accepted. docs/replacing-kube-proxy.md lists all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from kproxy.settings.text import SocketAddress, bind_address, duration, node_name

Effect = Mapping[str, Any]
"""Values by field of Settings."""
MODES = ("iptables", "ipvs", "nftables")
"""The modes of kube-proxy on Linux."""
VERBOSE = 4
"""The lowest level of `--v` that sets `--verbose`. kubeadm's DaemonSet uses 2."""


class Why(StrEnum):
    """Why a flag or a field of kube-proxy has no effect, as part of a sentence."""

    RETRIES_BIND = "kproxy always retries to bind an address"
    WATCHES = "kproxy watches objects and does not list them again"
    NO_PROFILES = "kproxy does not serve profiles"
    NO_GATES = "kproxy has no feature gates"
    NO_LOCALHOST = "node ports do not work on loopback addresses"
    NO_MARKS = "kproxy does not use packet marks"
    NO_IPVS = "kproxy has no ipvs mode"
    LOG_FORMAT = "the format of kproxy's log is fixed"
    LOG_LEVEL = "kproxy's log has one level for all modules"
    OOM_SCORE = "set it in the systemd unit or the DaemonSet"
    NO_HIDDEN_METRICS = "kproxy has no hidden metrics"


class KubeProxyFlag(NamedTuple):
    """A flag of kube-proxy."""

    name: str
    """The name with its dashes."""
    metavar: str
    """The placeholder of the value; "" for a switch."""
    meaning: str
    """Its effect in kproxy, or why it has none, as part of a sentence."""
    read: Callable[[str], Effect | None] | None = None
    """Returns the effect of a value; None if it has no effect. Raises ValueError."""

    @property
    def param(self) -> str:
        """The name as an identifier."""
        return self.name.strip("-").replace("-", "_")

    def effect(self, value: str | bool) -> tuple[Effect, str]:
        """Return the effect of a value, and the line to print, or ""."""
        if value is False:
            return {}, ""
        found = self.read(str(value)) if self.read else None
        return (found, "") if found is not None else ({}, f"{self.name} has no effect: {self.meaning}.")


def _node_name(text: str) -> Effect:
    return {"node_name": node_name(text)} if text else {}


def _node_ip(text: str) -> Effect:
    found = bind_address(text)
    return {"node_ip": found} if found else {}


def _mode(text: str) -> Effect | None:
    if text not in ("", *MODES):
        raise ValueError(f"{text!r} is not one of {', '.join(MODES)}")
    return {} if text == "nftables" else None


def _verbosity(text: str) -> Effect:
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError(f"{text!r} is not a number")
    return {"verbose": True} if int(text) >= VERBOSE else {}


def _sync_period(text: str) -> Effect:
    seconds = duration(text)
    return {"sync_period": seconds} if seconds else {}


def _min_sync_period(text: str) -> Effect:
    return {"min_sync_period": duration(text)}


def _healthz_port(text: str) -> Effect:
    return {"healthz_bind_address": _port("0.0.0.0", text)}


def _metrics_port(text: str) -> Effect:
    return {"metrics_bind_address": _port("127.0.0.1", text)}


def _port(host: str, text: str) -> SocketAddress | None:
    if not text.isdigit() or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port")
    return SocketAddress(host, int(text)) if int(text) else None


def _no_file(text: str) -> None:
    raise ValueError("kproxy does not write its configuration to a file")


_NO_LOG_FILES = "kproxy logs to standard error only"
_OWN_CLIENT = "kproxy has its own client for the API server"


def _without_effect(why: str, *names: str) -> Iterator[KubeProxyFlag]:
    """Yield flags that have no effect for the same reason. A name may be followed by a placeholder."""
    for name, _, metavar in (text.partition(" ") for text in names):
        yield KubeProxyFlag(name, metavar, why)


KUBE_PROXY_FLAGS = (
    KubeProxyFlag("--bind-address", "IP", "sets `--node-ip`, unless it is `0.0.0.0` or `::`", _node_ip),
    KubeProxyFlag("--bind-address-hard-fail", "", Why.RETRIES_BIND),
    KubeProxyFlag("--cleanup", "", "does what `kproxy cleanup` does"),
    KubeProxyFlag("--config-sync-period", "DURATION", Why.WATCHES),
    KubeProxyFlag("--feature-gates", "GATE=BOOL,...", Why.NO_GATES),
    KubeProxyFlag("--healthz-port", "PORT", "sets the port of `--healthz-bind-address`", _healthz_port),
    KubeProxyFlag("--hostname-override", "NAME", "sets `--node-name`", _node_name),
    KubeProxyFlag("--iptables-localhost-nodeports", "", Why.NO_LOCALHOST),
    KubeProxyFlag("--iptables-masquerade-bit", "N", Why.NO_MARKS),
    KubeProxyFlag("--iptables-min-sync-period", "DURATION", "sets `--min-sync-period`", _min_sync_period),
    KubeProxyFlag("--iptables-sync-period", "DURATION", "sets `--sync-period`", _sync_period),
    *_without_effect(
        Why.NO_IPVS,
        "--ipvs-exclude-cidrs CIDR,...",
        "--ipvs-min-sync-period DURATION",
        "--ipvs-scheduler NAME",
        "--ipvs-strict-arp",
        "--ipvs-sync-period DURATION",
        "--ipvs-tcp-timeout DURATION",
        "--ipvs-tcpfin-timeout DURATION",
        "--ipvs-udp-timeout DURATION",
    ),
    *_without_effect(_OWN_CLIENT, "--kube-api-burst N", "--kube-api-qps N"),
    KubeProxyFlag("--master", "URL", "the kubeconfig or the pod's environment has the API server's address"),
    KubeProxyFlag("--metrics-port", "PORT", "sets the port of `--metrics-bind-address`", _metrics_port),
    KubeProxyFlag("--oom-score-adj", "N", Why.OOM_SCORE),
    KubeProxyFlag("--profiling", "", Why.NO_PROFILES),
    KubeProxyFlag(
        "--proxy-mode",
        "MODE",
        "kproxy only has nftables mode, and serves node ports on the primary addresses unless "
        "`--nodeport-addresses` is set",
        _mode,
    ),
    KubeProxyFlag("--show-hidden-metrics-for-version", "VERSION", Why.NO_HIDDEN_METRICS),
    KubeProxyFlag(
        "--write-config-to", "FILE", "an error: kproxy does not write its configuration to a file", _no_file
    ),
    # Logging. `-v` without a number is kproxy's flag.
    KubeProxyFlag("--v", "N", f"from level {VERBOSE}, sets `--verbose`. `-v=N` is the same", _verbosity),
    KubeProxyFlag("--vmodule", "PATTERN=N,...", Why.LOG_LEVEL),
    *_without_effect(
        Why.LOG_FORMAT,
        "--log-flush-frequency DURATION",
        "--log-json-info-buffer-size QUANTITY",
        "--log-json-split-stream",
        "--log-text-info-buffer-size QUANTITY",
        "--log-text-split-stream",
        "--logging-format FORMAT",
        "--add-dir-header",
        "--log-backtrace-at FILE:N",
        "--skip-headers",
    ),
    *_without_effect(
        _NO_LOG_FILES,
        "--alsologtostderr",
        "--log-dir DIR",
        "--log-file FILE",
        "--log-file-max-size N",
        "--logtostderr",
        "--one-output",
        "--skip-log-headers",
        "--stderrthreshold SEVERITY",
    ),
)


def effects(found: Iterable[tuple[KubeProxyFlag, str | bool]]) -> tuple[dict[str, Any], list[str]]:
    """Return the effects of flags by field of Settings, and the lines to print."""
    values: dict[str, Any] = {}
    lines: list[str] = []
    for flag, value in found:
        effect, line = flag.effect(value)
        values |= effect
        lines += [line] if line else []
    return values, lines
