"""kube-proxy's configuration file -> settings.

A node that runs kube-proxy has a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), which kubeadm
stores in a ConfigMap. A field with a meaning for kproxy becomes a setting; a flag overrides it. A field
that is set and has no effect causes a warning. Tools write every field, so a field that is null, empty,
false or zero counts as not set, and so does one with kube-proxy's default. A field that kube-proxy does not
have is invalid if its name is similar to that of a field, and else causes a warning: newer versions may
have it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from kproxy.model import Network
from kproxy.problems import did_you_mean
from kproxy.settings.kubeproxy_flags import MODES, VERBOSE, Why
from kproxy.settings.settings import HEALTHZ_PORT, METRICS_PORT, LocalMode
from kproxy.settings.text import (
    bind_address,
    content_type,
    duration,
    listen_address,
    networks,
    node_name,
    nodeport_addresses,
)

API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"

_UNSET: tuple[object, ...] = ("", "0", "0s", 0, False, [], {})


class _Unused(NamedTuple):
    """A field of kube-proxy without an effect."""

    why: str
    default: object = None
    """kube-proxy's; None if that counts as not set."""


_CLIENT = "kproxy uses its kubeconfig only"
_IPTABLES = "kproxy has no iptables mode"
_LINUX = "kproxy runs on Linux only"
_OLD = "kube-proxy 1.36 does not have it"

_UNUSED = {
    "bindAddressHardFail": _Unused(Why.RETRIES_BIND),
    "clientConnection.acceptContentTypes": _Unused(_CLIENT),
    "clientConnection.burst": _Unused(_CLIENT, 10),
    "clientConnection.qps": _Unused(_CLIENT, 5),
    "configSyncPeriod": _Unused(Why.WATCHES, "15m0s"),
    "enableProfiling": _Unused(Why.NO_PROFILES),
    "featureGates": _Unused(Why.NO_GATES),
    "iptables.localhostNodePorts": _Unused(Why.NO_LOCALHOST, True),
    "iptables.masqueradeBit": _Unused(Why.NO_MARKS, 14),
    "ipvs.excludeCIDRs": _Unused(Why.NO_IPVS),
    "ipvs.minSyncPeriod": _Unused(Why.NO_IPVS, "1s"),
    "ipvs.scheduler": _Unused(Why.NO_IPVS),
    "ipvs.strictARP": _Unused(Why.NO_IPVS),
    "ipvs.syncPeriod": _Unused(Why.NO_IPVS, "30s"),
    "ipvs.tcpFinTimeout": _Unused(Why.NO_IPVS),
    "ipvs.tcpTimeout": _Unused(Why.NO_IPVS),
    "ipvs.udpTimeout": _Unused(Why.NO_IPVS),
    "logging.flushFrequency": _Unused(Why.LOG_FORMAT, "5s"),
    "logging.format": _Unused(Why.LOG_FORMAT, "text"),
    "logging.options.json.infoBufferSize": _Unused(Why.LOG_FORMAT),
    "logging.options.json.splitStream": _Unused(Why.LOG_FORMAT),
    "logging.options.text.infoBufferSize": _Unused(Why.LOG_FORMAT),
    "logging.options.text.splitStream": _Unused(Why.LOG_FORMAT),
    "logging.vmodule": _Unused(Why.LOG_LEVEL),
    "nftables.masqueradeBit": _Unused(Why.NO_MARKS, 14),
    "oomScoreAdj": _Unused(Why.OOM_SCORE, -999),
    "portRange": _Unused("kproxy has no userspace mode"),
    "showHiddenMetricsForVersion": _Unused(Why.NO_HIDDEN_METRICS),
    "windowsRunAsService": _Unused(_LINUX),
    "winkernel.enableDSR": _Unused(_LINUX, True),
    "winkernel.forwardHealthCheckVip": _Unused(_LINUX),
    "winkernel.networkName": _Unused(_LINUX),
    "winkernel.rootHnsEndpointName": _Unused(_LINUX),
    "winkernel.sourceVip": _Unused(_LINUX),
    # of older versions
    "conntrack.max": _Unused(_OLD),
    "resourceContainer": _Unused(_OLD, "/kube-proxy"),
    "udpIdleTimeout": _Unused(_OLD, "250ms"),
}
_OF_OTHER_MODES = {"masqueradeAll": False, "minSyncPeriod": "1s", "syncPeriod": "30s"}
"""Defaults of fields that have an effect only in the section of the configured mode."""


class Configuration(NamedTuple):
    """The content of a file."""

    values: dict[str, Any]
    """By the name of the setting."""
    warnings: list[str]
    """`FIELD: MESSAGE` for each field that is set and has no effect."""
    problems: list[str]
    """`FIELD: MESSAGE` for each invalid field. If there are any, the values are incomplete."""


def decode_configuration(content: object) -> Configuration:
    """Decode a KubeProxyConfiguration that was parsed from YAML or JSON."""
    found = Configuration({}, [], [])
    if not isinstance(content, dict) or content.get("kind") != KIND:
        found.problems.append(f"kind: is not a {KIND} of {API_VERSION}")
        return found
    if (version := content.get("apiVersion")) != API_VERSION:
        found.problems.append(f"apiVersion: {version!r} is not {API_VERSION}")
        return found
    fields = {path: value for path, value in _fields(content) if path not in ("apiVersion", "kind")}
    section = _section(fields, found)
    readers = {**_FIELDS, **{f"{section}.{name}": field for name, field in _OF_MODE.items()}}
    for path, value in fields.items():
        if path in readers:
            _take(path, value, readers[path], found)
        elif path in _SECTIONS:
            found.problems.append(f"{path}: Expected `object`, got `{type(value).__name__}`")
        elif path not in _KNOWN:
            _take_unknown(path, found)
        elif value not in _UNSET and path != "mode":
            unused = _UNUSED.get(path) or _of_other_mode(path)
            if not _equal(value, unused.default):
                found.warnings.append(f"{path}: has no effect: {unused.why}")
    return found


def _equal(value: object, default: object) -> bool:
    """Whether two values are equal, or durations of equal length."""
    try:
        return value == default or duration(str(value)) == duration(str(default))
    except ValueError:
        return False


def _fields(content: Mapping[Any, object], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in content.items():
        if isinstance(value, dict) and f"{before}{name}" not in _KNOWN:
            yield from _fields(value, f"{before}{name}.")
        elif value is not None:
            yield f"{before}{name}", value


def _section(fields: Mapping[str, object], found: Configuration) -> str:
    """Return the section with the settings of the configured mode. They also apply to kproxy."""
    mode = fields.get("mode", "")
    if mode not in ("", *MODES):
        found.problems.append(f"mode: {mode!r} is not one of {', '.join(MODES)}")
    if mode != "nftables":
        configured = f"mode: {mode}" if mode else "the default mode, iptables,"
        message = f"{configured} has no effect: kproxy only has nftables mode"
        if not fields.get("nodePortAddresses"):
            message += ", and node ports are on the primary addresses only (nodePortAddresses is not set)"
        found.warnings.append(message)
    return "nftables" if mode == "nftables" else "iptables"


def _of_other_mode(path: str) -> _Unused:
    section, _, name = path.partition(".")
    why = _IPTABLES if section == "iptables" else "the configured mode is not nftables"
    return _Unused(why, _OF_OTHER_MODES[name])


def _take_unknown(path: str, found: Configuration) -> None:
    """Report a misspelled field as a problem. Warn about other fields, which may be of a newer kube-proxy."""
    section = ""
    for name in path.split("."):
        siblings = {known[len(section) :].partition(".")[0] for known in _KNOWN if known.startswith(section)}
        if name not in siblings:
            break
        section += f"{name}."
    if nearest := did_you_mean(name, siblings):
        found.problems.append(f"{section}{name}: is not a field of kube-proxy.{nearest}")
    else:
        found.warnings.append(f"{path}: has no effect: {_OLD}")


def _take(path: str, value: object, field: _Field, found: Configuration) -> None:
    try:
        typed = msgspec.convert(value, field.type)
        setting = field.read(typed) if typed or field.zero else ...
        if setting is not ...:
            found.values[field.setting] = setting
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$")
        found.problems.append(f"{path}{at.rstrip('`')}: {message}")
    except ValueError as error:
        found.problems.append(f"{path}: {error}")


# --- fields: type, and conversion to a setting ---


def _node_ip(text: str) -> object:
    return bind_address(text) or ...


def _mode(text: str) -> LocalMode:
    if text not in list(LocalMode):
        raise ValueError(f"{text!r} is not one of {', '.join(LocalMode)}")
    return LocalMode(text)


def _nodeport_addresses(entries: list[str]) -> tuple[Network, ...] | None:
    return nodeport_addresses(",".join(entries))


def _positive(text: str) -> object:
    return duration(text) or ...


def _count(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number


class _Field(NamedTuple):
    """The conversion of a field to a setting."""

    setting: str
    type: Any
    """The type in the file."""
    read: Callable[[Any], object]
    """Returns the value of the setting, or `...` for its default."""
    zero: bool = False
    """Whether zero is a value, since kube-proxy distinguishes it from a missing one."""


_FIELDS = {
    "clientConnection.contentType": _Field("kube_api_content_type", str, content_type),
    "clientConnection.kubeconfig": _Field("kubeconfig", str, str),
    "hostnameOverride": _Field("node_name", str, node_name),
    "bindAddress": _Field("node_ip", str, _node_ip),
    "healthzBindAddress": _Field("healthz_bind_address", str, partial(listen_address, port=HEALTHZ_PORT)),
    "metricsBindAddress": _Field("metrics_bind_address", str, partial(listen_address, port=METRICS_PORT)),
    "detectLocalMode": _Field("detect_local_mode", str, _mode),
    "detectLocal.bridgeInterface": _Field("pod_bridge_interface", str, str),
    "detectLocal.interfaceNamePrefix": _Field("pod_interface_name_prefix", str, str),
    "clusterCIDR": _Field("cluster_cidr", str, networks),
    "nodePortAddresses": _Field("nodeport_addresses", list[str], _nodeport_addresses),
    "conntrack.maxPerCore": _Field("conntrack_max_per_core", int, _count, zero=True),
    "conntrack.min": _Field("conntrack_min", int, _count, zero=True),
    "conntrack.tcpBeLiberal": _Field("conntrack_tcp_be_liberal", bool, bool),
    "conntrack.tcpCloseWaitTimeout": _Field("conntrack_tcp_timeout_close_wait", str, duration),
    "conntrack.tcpEstablishedTimeout": _Field("conntrack_tcp_timeout_established", str, duration),
    "conntrack.udpStreamTimeout": _Field("conntrack_udp_timeout_stream", str, _positive),
    "conntrack.udpTimeout": _Field("conntrack_udp_timeout", str, _positive),
    "logging.verbosity": _Field("verbose", int, lambda level: level >= VERBOSE or ...),
}
_OF_MODE = {
    "masqueradeAll": _Field("masquerade_all", bool, bool),
    "syncPeriod": _Field("sync_period", str, _positive),
    "minSyncPeriod": _Field("min_sync_period", str, _positive),
}
_KNOWN = {
    *("apiVersion", "kind", "mode"),
    *(*_FIELDS, *_UNUSED),
    *(f"{mode}.{name}" for mode in ("iptables", "nftables") for name in _OF_MODE),
}
"""All fields of kube-proxy, those of older versions included."""
_SECTIONS = {path[:at] for path in _KNOWN for at, letter in enumerate(path) if letter == "."}


def field_of(setting: str) -> str:
    """Return the field of the file that sets a setting."""
    return next(path for path, field in {**_FIELDS, **_OF_MODE}.items() if field.setting == setting)
