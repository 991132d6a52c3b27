"""kube-proxy's configuration file as the values of our flags.

A node that runs kube-proxy has a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1); kubeadm keeps
it in a ConfigMap. What has a meaning here becomes the default of a flag, by the flag's dest in
argparse; what has none and is set nevertheless is named in a warning, since whoever set it expects something.
As kubeadm writes every field, one that is null, empty, false or zero is one that is not set.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from kproxy.settings.socket_address import parse_socket_address

API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"
HEALTHZ_PORT, METRICS_PORT = 10256, 10249
MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")

_UNSET: tuple[object, ...] = ("", "0", "0s", 0, False, [])
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")

# Why a field that is set has no effect; by field, or by the section that it is in.
_UNUSED = {
    "bindAddressHardFail": "an address that cannot be bound is tried again",
    "clientConnection": "only its kubeconfig is used",
    "conntrack": "the kernel's settings of connection tracking are left alone",
    "configSyncPeriod": "objects are watched, not listed again",
    "iptables": "there is no iptables mode",
    "ipvs": "there is no ipvs mode",
    "nftables.masqueradeBit": "the packet mark is not used",
    "oomScoreAdj": "the unit or the DaemonSet sets it",
    "winkernel": "this is Linux",
}


class Configuration(NamedTuple):
    """What a file says."""

    defaults: dict[str, Any]
    """By dest, what a flag that is not given is to be: text as on the command line, bool, seconds."""
    warnings: list[str]
    """`field: sentence`, of what is set and has no effect."""
    problems: list[str]
    """`field: sentence`, of what is wrong; with any of these the defaults are not complete."""


class _Wrong(ValueError):
    """A value that a field cannot have."""


def decode_configuration(content: object) -> Configuration:
    """A KubeProxyConfiguration, parsed from YAML or JSON."""
    found = Configuration({}, [], [])
    if not isinstance(content, dict) or (content.get("apiVersion"), content.get("kind")) != (
        API_VERSION,
        KIND,
    ):
        found.problems.append(f"kind: is not a {KIND} of {API_VERSION}")
        return found
    fields = {path: value for path, value in _fields(content) if path not in ("apiVersion", "kind")}
    section = _section(fields, found)
    takers = {**_TAKERS, **{f"{section}.{name}": taker for name, taker in _OF_MODE.items()}}
    sections = {taken.partition(".")[0] for taken in takers if "." in taken}
    for path, value in fields.items():
        if path in takers:
            _take(path, value, takers[path], found)
        elif path in sections:
            found.problems.append(f"{path}: Expected `object`, got `{type(value).__name__}`")
        elif value not in _UNSET and path != "mode":
            found.warnings.append(f"{path}: has no effect{_why(path)}")
    if section == "iptables" and not fields.get("nodePortAddresses"):
        message = (
            "not set: iptables mode serves node ports on all addresses, kproxy on the node's primary ones"
        )
        found.warnings.append(f"nodePortAddresses: {message}")
    return found


def _fields(content: Mapping[Any, object], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, dict) and f"{before}{name}" not in _NO_SECTIONS:
            yield from _fields(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def _section(fields: Mapping[str, object], found: Configuration) -> str:
    """Where the settings of the mode in force are: a cluster that moves here keeps what it has."""
    mode = fields.get("mode", "")
    if mode not in ("", "iptables", "ipvs", "nftables"):
        found.problems.append(f"mode: {mode!r} is not one of iptables, ipvs, nftables")
    if mode != "nftables":
        found.warnings.append(f"mode: {mode or 'iptables'}; kproxy has nftables only")
    return "nftables" if mode == "nftables" else "iptables"


def _why(path: str) -> str:
    reason = _UNUSED.get(path) or _UNUSED.get(path.partition(".")[0])
    return f": {reason}" if reason else ""


def _take(path: str, value: object, taker: tuple[Any, Any], found: Configuration) -> None:
    expected, read = taker
    try:
        typed = msgspec.convert(value, expected)
        if typed:
            found.defaults.update(read(typed))
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        found.problems.append(f"{path}{at.rstrip('`')}: {message}")
    except ValueError as error:
        found.problems.append(f"{path}: {error}")


# --- fields: what type each is of, and what it is to which flag ---


def _node_name(text: str) -> dict[str, Any]:
    if not text.strip():
        raise _Wrong("a name is expected")
    return {"node_name": text.strip().lower()}


def _node_ip(text: str) -> dict[str, Any]:
    return {} if ip_address(text).is_unspecified else {"node_ip": text}


def _socket_address(text: str, port: int) -> str:
    """With a port: that of the default, where there is none."""
    try:
        address = ip_address(text)
    except ValueError:
        parse_socket_address(text)
        return text
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _mode(text: str) -> dict[str, Any]:
    if text not in MODES:
        raise _Wrong(f"{text!r} is not one of {', '.join(MODES)}")
    return {"detect_local_mode": text}


def _cluster_cidr(text: str) -> dict[str, Any]:
    for part in text.split(","):
        ip_network(part, strict=False)
    return {"cluster_cidr": ",".join(str(ip_network(part, strict=False)) for part in text.split(","))}


def _nodeport_addresses(entries: list[str]) -> dict[str, Any]:
    keywords = {"all": ["0.0.0.0/0", "::/0"], "localhost": []}
    if "primary" in entries:
        if set(entries) - {"primary", "localhost"}:
            raise _Wrong("primary goes with no other ranges")
        return {"nodeport_addresses": "primary"}
    ranges = [text for entry in entries for text in keywords.get(entry, [entry])]
    if not ranges:
        raise _Wrong("node ports are not served on loopback")
    return {"nodeport_addresses": ",".join(str(ip_network(text, strict=False)) for text in ranges)}


def duration(text: str) -> float:
    """Seconds of a duration as Go writes it: `1h30m`, `250ms`, `0`. ValueError."""
    parts = _QUANTITY.findall(text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise _Wrong(f"{text!r} is not a duration, as 30s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


_TAKERS: dict[str, tuple[Any, Any]] = {
    "clientConnection.kubeconfig": (str, lambda text: {"kubeconfig": text}),
    "hostnameOverride": (str, _node_name),
    "bindAddress": (str, _node_ip),
    "healthzBindAddress": (str, lambda text: {"healthz_bind_address": _socket_address(text, HEALTHZ_PORT)}),
    "metricsBindAddress": (str, lambda text: {"metrics_bind_address": _socket_address(text, METRICS_PORT)}),
    "detectLocalMode": (str, _mode),
    "detectLocal.bridgeInterface": (str, lambda text: {"pod_bridge_interface": text}),
    "detectLocal.interfaceNamePrefix": (str, lambda text: {"pod_interface_name_prefix": text}),
    "clusterCIDR": (str, _cluster_cidr),
    "nodePortAddresses": (list[str], _nodeport_addresses),
}
_OF_MODE: dict[str, tuple[Any, Any]] = {
    "masqueradeAll": (bool, lambda value: {"masquerade_all": value}),
    "syncPeriod": (str, lambda text: {"sync_period": duration(text)} if duration(text) else {}),
    "minSyncPeriod": (str, lambda text: {"min_sync_period": duration(text)} if duration(text) else {}),
}
_NO_SECTIONS = {
    "mode",
    *_TAKERS,
    *(f"{mode}.{name}" for mode in ("iptables", "nftables") for name in _OF_MODE),
}
