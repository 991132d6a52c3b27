"""kube-proxy's configuration file -> settings.

A node that runs kube-proxy has a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), which kubeadm
stores in a ConfigMap. A field with a meaning for kproxy becomes a setting; a flag overrides it. A field
that is set and has no effect causes a warning. kubeadm writes every field, so a field that is null, empty,
false or zero counts as not set.
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

# Why a field that is set has no effect, by field or by section.
_UNUSED = {
    "bindAddressHardFail": "kproxy always retries to bind an address",
    "clientConnection": "kproxy uses its kubeconfig only",
    "conntrack": "kproxy does not change the kernel's connection tracking settings",
    "configSyncPeriod": "kproxy watches objects and does not list them again",
    "iptables": "kproxy has no iptables mode",
    "ipvs": "kproxy has no ipvs mode",
    "nftables.masqueradeBit": "kproxy does not use packet marks",
    "oomScoreAdj": "set it in the systemd unit or the DaemonSet",
    "winkernel": "kproxy runs on Linux only",
}


class Configuration(NamedTuple):
    """The content of a file."""

    values: dict[str, Any]
    """By the name of the setting."""
    warnings: list[str]
    """`FIELD: MESSAGE` for each field that is set and has no effect."""
    problems: list[str]
    """`FIELD: MESSAGE` for each invalid field. If there are any, the values are incomplete."""


class _Invalid(ValueError):
    """A field has an invalid value."""


def decode_configuration(content: object) -> Configuration:
    """Decode a KubeProxyConfiguration that was parsed from YAML or JSON."""
    found = Configuration({}, [], [])
    if not isinstance(content, dict) or (content.get("apiVersion"), content.get("kind")) != (
        API_VERSION,
        KIND,
    ):
        found.problems.append(f"kind: is not a {KIND} of {API_VERSION}")
        return found
    fields = {path: value for path, value in _fields(content) if path not in ("apiVersion", "kind")}
    section = _section(fields, found)
    readers = {**_FIELDS, **{f"{section}.{name}": field for name, field in _OF_MODE.items()}}
    sections = {name.partition(".")[0] for name in readers if "." in name}
    for path, value in fields.items():
        if path in readers:
            _take(path, value, readers[path], found)
        elif path in sections:
            found.problems.append(f"{path}: Expected `object`, got `{type(value).__name__}`")
        elif value not in _UNSET and path != "mode":
            found.warnings.append(f"{path}: has no effect{_why(path)}")
    if section == "iptables" and not fields.get("nodePortAddresses"):
        message = (
            "not set: iptables mode serves node ports on all addresses, kproxy on the primary addresses only"
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
    """Return the section with the settings of the configured mode. They also apply to kproxy."""
    mode = fields.get("mode", "")
    if mode not in ("", "iptables", "ipvs", "nftables"):
        found.problems.append(f"mode: {mode!r} is not one of iptables, ipvs, nftables")
    if mode != "nftables":
        found.warnings.append(f"mode: {mode or 'iptables'} has no effect: kproxy only has nftables mode")
    return "nftables" if mode == "nftables" else "iptables"


def _why(path: str) -> str:
    reason = _UNUSED.get(path) or _UNUSED.get(path.partition(".")[0])
    return f": {reason}" if reason else ""


def _take(path: str, value: object, field: _Field, found: Configuration) -> None:
    try:
        typed = msgspec.convert(value, field.type)
        setting = field.read(typed) if typed else ...
        if setting is not ...:
            found.values[field.setting] = setting
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        found.problems.append(f"{path}{at.rstrip('`')}: {message}")
    except ValueError as error:
        found.problems.append(f"{path}: {error}")


# --- fields: type, and conversion to a setting ---


def _node_name(text: str) -> str:
    if not text.strip():
        raise _Invalid("expected a name")
    return text.strip().lower()


def _node_ip(text: str) -> object:
    return ... if ip_address(text).is_unspecified else addresses(text)


def _socket_address(text: str, port: int) -> SocketAddress | None:
    """Parse `ADDRESS:PORT`, or an address without a port, which gets the default port."""
    try:
        return SocketAddress(str(ip_address(text)), port)
    except ValueError:
        return socket_address(text)


def _mode(text: str) -> LocalMode:
    if text not in list(LocalMode):
        raise _Invalid(f"{text!r} is not one of {', '.join(LocalMode)}")
    return LocalMode(text)


def _networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse CIDRs. As in kube-proxy, host bits are ignored."""
    return networks(",".join(str(ip_network(text, strict=False)) for text in texts))


def _nodeport_addresses(entries: list[str]) -> tuple[Network, ...] | None:
    keywords = {"all": ["0.0.0.0/0", "::/0"], "localhost": []}
    if "primary" in entries:
        if set(entries) - {"primary", "localhost"}:
            raise _Invalid("primary cannot be combined with other ranges")
        return None
    ranges = [text for entry in entries for text in keywords.get(entry, [entry])]
    if not ranges:
        raise _Invalid("kproxy does not serve node ports on loopback")
    return _networks(ranges)


class _Field(NamedTuple):
    """How a field becomes a setting."""

    setting: str
    type: Any
    """The type in the file."""
    read: Callable[[Any], object]
    """Returns the value of the setting, or `...` for its default."""


_FIELDS = {
    "clientConnection.kubeconfig": _Field("kubeconfig", str, str),
    "hostnameOverride": _Field("node_name", str, _node_name),
    "bindAddress": _Field("node_ip", str, _node_ip),
    "healthzBindAddress": _Field("healthz_bind_address", str, partial(_socket_address, port=HEALTHZ_PORT)),
    "metricsBindAddress": _Field("metrics_bind_address", str, partial(_socket_address, port=METRICS_PORT)),
    "detectLocalMode": _Field("detect_local_mode", str, _mode),
    "detectLocal.bridgeInterface": _Field("pod_bridge_interface", str, str),
    "detectLocal.interfaceNamePrefix": _Field("pod_interface_name_prefix", str, str),
    "clusterCIDR": _Field("cluster_cidr", str, lambda text: _networks(text.split(","))),
    "nodePortAddresses": _Field("nodeport_addresses", list[str], _nodeport_addresses),
}
_OF_MODE = {
    "masqueradeAll": _Field("masquerade_all", bool, bool),
    "syncPeriod": _Field("sync_period", str, lambda text: duration(text) or ...),
    "minSyncPeriod": _Field("min_sync_period", str, lambda text: duration(text) or ...),
}
_NO_SECTIONS = {
    "mode",
    *_FIELDS,
    *(f"{mode}.{name}" for mode in ("iptables", "nftables") for name in _OF_MODE),
}
