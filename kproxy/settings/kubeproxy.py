"""kube-proxy's configuration file as settings.

A node that runs kube-proxy has a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1); kubeadm keeps
it in a ConfigMap. A field that has a meaning here becomes a setting; a flag wins over it. A field that is
set and has none is named in a warning, since its author expects an effect. kubeadm writes every field, so
one that is null, empty, false or zero counts as not set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from kproxy.model import Network
from kproxy.settings.settings import HEALTHZ_PORT, METRICS_PORT, LocalMode
from kproxy.settings.text import SocketAddress, addresses, duration, networks, socket_address

API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"

_UNSET: tuple[object, ...] = ("", "0", "0s", 0, False, [])

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

    values: dict[str, Any]
    """By the name of the setting."""
    warnings: list[str]
    """`field: sentence`, of what is set and has no effect."""
    problems: list[str]
    """`field: sentence`, of what is wrong; with any of these the values are not complete."""


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


def _take(path: str, value: object, taker: _Taker, found: Configuration) -> None:
    try:
        typed = msgspec.convert(value, taker.type)
        setting = taker.read(typed) if typed else ...
        if setting is not ...:
            found.values[taker.setting] = setting
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        found.problems.append(f"{path}{at.rstrip('`')}: {message}")
    except ValueError as error:
        found.problems.append(f"{path}: {error}")


# --- fields: what type each is of, and what it is to which flag ---


def _node_name(text: str) -> str:
    if not text.strip():
        raise _Wrong("a name is expected")
    return text.strip().lower()


def _node_ip(text: str) -> object:
    return ... if ip_address(text).is_unspecified else addresses(text)


def _socket_address(text: str, port: int) -> SocketAddress | None:
    """`ADDRESS:PORT`, or an address alone, which gets kproxy's default port."""
    try:
        return SocketAddress(str(ip_address(text)), port)
    except ValueError:
        return socket_address(text)


def _mode(text: str) -> LocalMode:
    if text not in list(LocalMode):
        raise _Wrong(f"{text!r} is not one of {', '.join(LocalMode)}")
    return LocalMode(text)


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """kube-proxy ignores the host bits of a CIDR."""
    return networks(",".join(str(ip_network(text, strict=False)) for text in texts))


def _nodeport_addresses(entries: list[str]) -> tuple[Network, ...] | None:
    keywords = {"all": ["0.0.0.0/0", "::/0"], "localhost": []}
    if "primary" in entries:
        if set(entries) - {"primary", "localhost"}:
            raise _Wrong("primary goes with no other ranges")
        return None
    ranges = [text for entry in entries for text in keywords.get(entry, [entry])]
    if not ranges:
        raise _Wrong("node ports are not served on loopback")
    return _networks(ranges)


class _Taker(NamedTuple):
    """The setting that a field is, its type in the file, and what reads it (`...`: leave the default)."""

    setting: str
    type: Any
    read: Callable[[Any], object]


_TAKERS = {
    "clientConnection.kubeconfig": _Taker("kubeconfig", str, str),
    "hostnameOverride": _Taker("node_name", str, _node_name),
    "bindAddress": _Taker("node_ip", str, _node_ip),
    "healthzBindAddress": _Taker("healthz_bind_address", str, partial(_socket_address, port=HEALTHZ_PORT)),
    "metricsBindAddress": _Taker("metrics_bind_address", str, partial(_socket_address, port=METRICS_PORT)),
    "detectLocalMode": _Taker("detect_local_mode", str, _mode),
    "detectLocal.bridgeInterface": _Taker("pod_bridge_interface", str, str),
    "detectLocal.interfaceNamePrefix": _Taker("pod_interface_name_prefix", str, str),
    "clusterCIDR": _Taker("cluster_cidr", str, lambda text: _networks(text.split(","))),
    "nodePortAddresses": _Taker("nodeport_addresses", list[str], _nodeport_addresses),
}
_OF_MODE = {
    "masqueradeAll": _Taker("masquerade_all", bool, bool),
    "syncPeriod": _Taker("sync_period", str, lambda text: duration(text) or ...),
    "minSyncPeriod": _Taker("min_sync_period", str, lambda text: duration(text) or ...),
}
_NO_SECTIONS = {
    "mode",
    *_TAKERS,
    *(f"{mode}.{name}" for mode in ("iptables", "nftables") for name in _OF_MODE),
}
