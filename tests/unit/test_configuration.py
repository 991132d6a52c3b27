"""kube-proxy's configuration file -> settings, warnings, and problems by field."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kproxy.cli import settings_from
from kproxy.problems import UsageError
from kproxy.settings.derived import check_daemon, configz, listen_addresses, warnings
from kproxy.settings.flags import flags_of
from kproxy.settings.kubeproxy import decode_configuration
from kproxy.settings.settings import LocalMode, Origin
from kproxy.settings.text import SocketAddress, addresses, duration, networks
from kproxy.sources.configuration import read_configuration
from tests.cases import cases

# As `kubeadm init` writes it with a pod network, kubeconfig and all defaults.
KUBEADM = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: nftables
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"""


def configuration(**fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        **fields,
    }


def test_the_configuration_of_kubeadm_causes_no_warnings() -> None:
    found = decode_configuration(yaml.safe_load(KUBEADM))
    assert found.problems == found.warnings == []
    assert found.values == {
        "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf",
        "cluster_cidr": networks("10.244.0.0/16,fd00:10:244::/56"),
    }


@pytest.mark.parametrize(
    ("fields", "defaults"),
    [
        ({"hostnameOverride": " Node-1 "}, {"node_name": "node-1"}),
        ({"bindAddress": "::"}, {}),
        ({"bindAddress": "192.0.2.7"}, {"node_ip": addresses("192.0.2.7")}),
        ({"healthzBindAddress": "[::]:1"}, {"healthz_bind_address": SocketAddress("::", 1)}),
        ({"healthzBindAddress": "::1"}, {"healthz_bind_address": SocketAddress("::1", 10256)}),
        ({"metricsBindAddress": "0.0.0.0"}, {"metrics_bind_address": SocketAddress("0.0.0.0", 10249)}),
        ({"detectLocalMode": "NodeCIDR"}, {"detect_local_mode": LocalMode.NODE_CIDR}),
        ({"detectLocal": {"bridgeInterface": "cni0"}}, {"pod_bridge_interface": "cni0"}),
        ({"detectLocal": {"interfaceNamePrefix": "cali"}}, {"pod_interface_name_prefix": "cali"}),
        ({"clusterCIDR": "10.244.3.0/16"}, {"cluster_cidr": networks("10.244.0.0/16")}),  # as Go parses it
        ({"nodePortAddresses": ["primary"]}, {"nodeport_addresses": None}),
        (
            {"nodePortAddresses": ["10.0.0.0/8", "fd00::/8"]},
            {"nodeport_addresses": networks("10.0.0.0/8,fd00::/8")},
        ),
        ({"nodePortAddresses": ["localhost", "all"]}, {"nodeport_addresses": networks("0.0.0.0/0,::/0")}),
        (
            {"conntrack": {"maxPerCore": 0, "min": 5, "tcpBeLiberal": True}},
            {"conntrack_max_per_core": 0, "conntrack_min": 5, "conntrack_tcp_be_liberal": True},
        ),
        (
            {
                "conntrack": {
                    "tcpCloseWaitTimeout": "0s",
                    "tcpEstablishedTimeout": "2h0m0s",
                    "udpTimeout": "1m",
                }
            },
            {
                "conntrack_tcp_timeout_close_wait": 0.0,
                "conntrack_tcp_timeout_established": 7200.0,
                "conntrack_udp_timeout": 60.0,
            },
        ),
        (
            {"nftables": {"masqueradeAll": True, "syncPeriod": "1m30s", "minSyncPeriod": "500ms"}},
            {"masquerade_all": True, "sync_period": 90.0, "min_sync_period": 0.5},
        ),
    ],
)
def test_fields_become_settings(fields: dict[str, Any], defaults: dict[str, Any]) -> None:
    found = decode_configuration(configuration(**fields))
    assert (found.values, found.warnings, found.problems) == (defaults, [], [])


@pytest.mark.parametrize("mode", ["", "iptables", "ipvs"])
def test_settings_of_another_mode_apply_with_a_warning(mode: str) -> None:
    found = decode_configuration(
        configuration(mode=mode, iptables={"masqueradeAll": True, "masqueradeBit": 15})
    )
    assert found.values == {"masquerade_all": True}
    first, second = found.warnings
    configured = f"mode: {mode}" if mode else "the default mode, iptables,"
    assert first.startswith(f"{configured} has no effect: kproxy only has nftables mode, and node")
    assert second.startswith("iptables.masqueradeBit: has no effect: kproxy does not use packet marks")


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        (
            {"clientConnection": {"qps": 50}},
            "clientConnection.qps: has no effect: kproxy uses its kubeconfig",
        ),
        ({"featureGates": {"Any": True}}, "featureGates: has no effect: kproxy has no feature gates"),
        ({"ipvs": {"scheduler": "rr"}}, "ipvs.scheduler: has no effect: kproxy has no ipvs mode"),
        (
            {"iptables": {"masqueradeAll": True}},
            "iptables.masqueradeAll: has no effect: kproxy has no iptables",
        ),
        (
            {"iptables": {"syncPeriod": "1m"}},
            "iptables.syncPeriod: has no effect: kproxy has no iptables mode",
        ),
        ({"bindAddressHardFail": True}, "bindAddressHardFail: has no effect: kproxy always retries"),
        ({"udpIdleTimeout": "1s"}, "udpIdleTimeout: has no effect: kube-proxy 1.36 does not have it"),
        (
            {"ipvs": {"masqueradeAll": True}},
            "ipvs.masqueradeAll: has no effect: kube-proxy 1.36 does not have",
        ),
        (
            {"entirelyNew": {"deep": {"a": 1}}},
            "entirelyNew.deep.a: has no effect: kube-proxy 1.36 does not have",
        ),
    ],
)
def test_a_field_without_effect_causes_a_warning(fields: dict[str, Any], warning: str) -> None:
    found = decode_configuration(configuration(**fields))
    assert (found.values, found.problems) == ({}, [])
    (text,) = found.warnings
    assert text.startswith(warning)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {"clusterCidr": "10.0.0.0/8"},
            "clusterCidr: is not a field of kube-proxy. Did you mean clusterCIDR?",
        ),
        (
            {"conntrack": {"maxPerCores": 1}},
            "conntrack.maxPerCores: is not a field of kube-proxy. Did you mean maxPerCore?",
        ),
        (
            {"clientConection": {"kubeconfig": "/x"}},
            "clientConection: is not a field of kube-proxy. Did you mean clientConnection?",
        ),
        (
            {"logging": {"options": {"jason": {"splitStream": True}}}},
            "logging.options.jason: is not a field of kube-proxy. Did you mean json?",
        ),
    ],
)
def test_a_misspelled_field_is_invalid(fields: dict[str, Any], problem: str) -> None:
    assert decode_configuration(configuration(**fields)).problems == [problem]


@pytest.mark.parametrize("ranges", [["127.0.0.0/8"], ["localhost"], ["127.0.0.0/8", "::1/128"]])
def test_loopback_only_disables_node_ports(ranges: list[str], tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(yaml.safe_dump(configuration(nodePortAddresses=ranges)))
    for name, flags in (
        ("nodePortAddresses", ["--config", str(file)]),
        ("--nodeport-addresses", ["--nodeport-addresses", ",".join(ranges)]),
    ):
        found = warnings(settings_from(["run", *flags]))
        assert found == [f"{name}: no node ports: kproxy does not serve them on loopback"]


@cases(
    """
    address          flags                                   expected
    0.0.0.0:10256    -                                       -
    127.0.0.1:10256  -                                       -
    192.0.2.1:10256  -                                       healthzBindAddress is no loopback address, and not on the command line
    -                --healthz-bind-address 192.0.2.1:10256  -
    -                --healthz-bind-address=                 --healthz-bind-address is empty
    """
)
def test_a_status_page_that_nothing_can_reach_is_a_warning(
    address: str, flags: str, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.conf"
    file.write_text(yaml.safe_dump(configuration(healthzBindAddress=address)))
    found = warnings(settings_from(["run", "--status-page", "--config", str(file), *flags.split()]))
    assert found == ([f"--status-page has no effect: {expected}"] if expected else [])


# As `kube-proxy --write-config-to FILE` writes it.
WRITTEN = """
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection: {acceptContentTypes: "", burst: 10, contentType: application/vnd.kubernetes.protobuf,
  kubeconfig: "", qps: 5}
clusterCIDR: ""
configSyncPeriod: 15m0s
conntrack: {maxPerCore: 32768, min: 131072, tcpBeLiberal: false, tcpCloseWaitTimeout: 1h0m0s,
  tcpEstablishedTimeout: 24h0m0s, udpStreamTimeout: 0s, udpTimeout: 0s}
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: ""
iptables: {localhostNodePorts: true, masqueradeAll: false, masqueradeBit: 14, minSyncPeriod: 1s,
  syncPeriod: 30s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 30s,
  tcpFinTimeout: 0s, tcpTimeout: 0s, udpTimeout: 0s}
kind: KubeProxyConfiguration
logging:
  flushFrequency: 5s
  format: text
  options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}
  verbosity: 0
metricsBindAddress: 127.0.0.1:10249
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: 14, minSyncPeriod: 1s, syncPeriod: 30s}
nodePortAddresses: null
oomScoreAdj: -999
portRange: ""
showHiddenMetricsForVersion: ""
windowsRunAsService: false
winkernel: {enableDSR: true, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "",
  sourceVip: ""}
"""


@pytest.mark.parametrize(("mode", "warnings"), [("", 1), ("nftables", 0)])
def test_kube_proxys_defaults_cause_at_most_one_warning(mode: str, warnings: int) -> None:
    found = decode_configuration(yaml.safe_load(WRITTEN) | {"mode": mode})
    assert found.problems == []
    assert len(found.warnings) == warnings


# All that kube-proxy 1.36 knows, each set to something.
EVERY_FIELD = """
bindAddress: 192.0.2.7
bindAddressHardFail: true
clientConnection: {acceptContentTypes: a, burst: 1, contentType: application/json, kubeconfig: /kubeconfig, qps: 0.5}
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 5m0s
conntrack: {maxPerCore: 1, min: 1, tcpBeLiberal: true, tcpCloseWaitTimeout: 1m0s,
  tcpEstablishedTimeout: 1h0m0s, udpStreamTimeout: 1s, udpTimeout: 1s}
detectLocal: {bridgeInterface: cni0, interfaceNamePrefix: veth}
detectLocalMode: BridgeInterface
enableProfiling: true
featureGates: {NFTablesProxyMode: true}
healthzBindAddress: 0.0.0.0:10256
hostnameOverride: n1
iptables: {localhostNodePorts: true, masqueradeAll: true, masqueradeBit: 15, minSyncPeriod: 2s,
  syncPeriod: 20s}
ipvs: {excludeCIDRs: [10.0.0.0/8], minSyncPeriod: 2s, scheduler: rr, strictARP: true, syncPeriod: 20s,
  tcpFinTimeout: 1s, tcpTimeout: 1s, udpTimeout: 1s}
logging:
  flushFrequency: 1s
  format: json
  options:
    json: {infoBufferSize: 1Mi, splitStream: true}
    text: {infoBufferSize: 1Mi, splitStream: true}
  verbosity: 4
  vmodule: [{filePattern: proxier, verbosity: 5}]
metricsBindAddress: 127.0.0.1:10249
nftables: {masqueradeAll: true, masqueradeBit: 15, minSyncPeriod: 2s, syncPeriod: 20s}
nodePortAddresses: [primary]
oomScoreAdj: -998
portRange: 0-0
showHiddenMetricsForVersion: "1.35"
windowsRunAsService: true
winkernel: {enableDSR: true, forwardHealthCheckVip: true, networkName: a,
  rootHnsEndpointName: b, sourceVip: c}
"""


SAME_AS_DEFAULT = {("winkernel", "enableDSR"), ("iptables", "localhostNodePorts")}
"""Switches that are on by default, and that off count as not set."""


def leaves(content: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from leaves(value, (*before, name))
        else:
            yield (*before, name), value


def test_every_field_has_an_effect_or_causes_a_warning() -> None:
    effects = {}
    for path, value in leaves(yaml.safe_load(EVERY_FIELD)):
        if path in SAME_AS_DEFAULT:
            continue
        nested: Any = value
        for name in reversed(path[1:]):
            nested = {name: nested}
        found = decode_configuration(configuration(**{path[0]: nested}))
        assert found.problems == []
        (effects[".".join(path)],) = [*found.values, *(w.partition(":")[0] for w in found.warnings)]
    with_effect = {path for path, named in effects.items() if not path.startswith(named)}
    assert with_effect == {
        *("bindAddress", "clusterCIDR", "detectLocalMode", "hostnameOverride"),
        *("clientConnection.kubeconfig", "clientConnection.contentType"),
        *("detectLocal.bridgeInterface", "detectLocal.interfaceNamePrefix", "nodePortAddresses"),
        *("healthzBindAddress", "metricsBindAddress", "logging.verbosity"),
        *("conntrack.maxPerCore", "conntrack.min", "conntrack.tcpBeLiberal"),
        *("conntrack.tcpCloseWaitTimeout", "conntrack.tcpEstablishedTimeout"),
        *("conntrack.udpStreamTimeout", "conntrack.udpTimeout"),
        *("nftables.masqueradeAll", "nftables.minSyncPeriod", "nftables.syncPeriod"),
    }


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"clusterCIDR": 5}, "clusterCIDR: Expected `str`, got `int`"),
        ({"clusterCIDR": "10.0.0.0/8,x"}, "clusterCIDR: 'x' does not appear to be"),
        ({"nodePortAddresses": "primary"}, "nodePortAddresses: Expected `array`, got `str`"),
        ({"nodePortAddresses": ["primary", 1]}, "nodePortAddresses[1]: Expected `str`, got `int`"),
        (
            {"nodePortAddresses": ["primary", "10.0.0.0/8"]},
            "nodePortAddresses: primary cannot be combined with",
        ),
        ({"detectLocalMode": "nodecidr"}, "detectLocalMode: 'nodecidr' is not one of"),
        ({"nftables": {"masqueradeAll": "yes"}}, "nftables.masqueradeAll: Expected `bool`, got `str`"),
        ({"nftables": {"syncPeriod": "30"}}, "nftables.syncPeriod: '30' is not a duration"),
        ({"healthzBindAddress": "localhost:1"}, "healthzBindAddress: 'localhost' does not appear"),
        ({"hostnameOverride": "  "}, "hostnameOverride: '  ' is not a name"),
        ({"clientConnection": "/kubeconfig"}, "clientConnection: Expected `object`, got `str`"),
        ({"detectLocal": []}, "detectLocal: Expected `object`, got `list`"),
        ({"nftables": [{"masqueradeAll": True}]}, "nftables: Expected `object`, got `list`"),
        ({"nodePortAddresses": {"a": "b"}}, "nodePortAddresses: Expected `array`, got `object`"),
        ({"clusterCIDR": {"ipv4": "10.0.0.0/8"}}, "clusterCIDR: Expected `str`, got `object`"),
        ({"conntrack": {"min": -1}}, "conntrack.min: -1 is negative"),
        ({"conntrack": {"udpTimeout": "1"}}, "conntrack.udpTimeout: '1' is not a duration"),
        ({"mode": "userspace"}, "mode: 'userspace' is not one of"),
        ({"nftables": {"syncPeriod": {"seconds": 5}}}, "nftables.syncPeriod: Expected `str`, got `object`"),
        ({"kind": "KubeletConfiguration"}, "kind: is not a KubeProxyConfiguration"),
        (
            {"apiVersion": "kubeproxy.config.k8s.io/v1"},
            "apiVersion: 'kubeproxy.config.k8s.io/v1' is not kube",
        ),
    ],
)
def test_problems_name_the_field(fields: dict[str, Any], problem: str) -> None:
    (found,) = decode_configuration(configuration(**fields)).problems
    assert found.startswith(problem)


@pytest.mark.parametrize("content", [None, [], "text", 1])
def test_content_that_is_not_an_object(content: object) -> None:
    assert decode_configuration(content).problems


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("2h22m", 8520), ("1.5s", 1.5), ("250ms", 0.25), ("15µs", 15e-6)],
)
def test_durations_in_the_format_of_go(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1 s", "1s2", "1d"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


# --- the file, and the flags ---


def test_flags_override_the_file_and_each_value_has_an_origin(tmp_path: Path) -> None:
    file = tmp_path / "config.conf"
    file.write_text(
        yaml.safe_dump(
            configuration(
                clusterCIDR="10.244.0.0/16",
                nodePortAddresses=["all"],
                healthzBindAddress="[::]:5",
                nftables={"masqueradeAll": True},
            )
        )
    )
    flags = ["--healthz-bind-address", "127.0.0.1:7", "--metrics-bind-address", ""]
    settings = settings_from(["run", "--config", str(file), *flags])
    assert settings.healthz_bind_address == SocketAddress("127.0.0.1", 7)
    assert settings.metrics_bind_address is None
    assert settings.masquerade_all is True
    assert settings.cluster_cidr == networks("10.244.0.0/16")
    assert settings.nodeport_addresses == networks("0.0.0.0/0,::/0")
    assert settings.origin("healthz_bind_address") is Origin.FLAG
    assert settings.origin("cluster_cidr") is Origin.FILE
    assert settings.origin("sync_period") is Origin.DEFAULT


def setting(argv: list[str], field: str) -> object:
    """Return the value of a setting, or "invalid"."""
    try:
        return getattr(settings_from(["run", *argv]), field)
    except UsageError:
        return "invalid"


TEXTS = [
    *(
        "x",
        " ",
        " N1 ",
        "0.0.0.0",
        "::",
        "192.0.2.7",
        "192.0.2.7:5",
        "[::]:5",
        "192.0.2.7,::1",
        "1.2.3.4:99999",
    ),
    *("10.1.0.0/8", "10.0.0.0/8,fd00::/8", "10.0.0.0/8,", "primary", "all", "localhost", "primary,localhost"),
    *("primary,10.0.0.0/8", "localhost,10.0.0.0/8", "NodeCIDR", "nodecidr", "0s", "1m", "-1s", "1d"),
]
FLAG_OF_FIELD = {
    "hostnameOverride": "node-name",
    "bindAddress": "bind-address",
    "healthzBindAddress": "healthz-bind-address",
    "metricsBindAddress": "metrics-bind-address",
    "detectLocalMode": "detect-local-mode",
    "clusterCIDR": "cluster-cidr",
    "nodePortAddresses": "nodeport-addresses",
    "conntrack.tcpEstablishedTimeout": "conntrack-tcp-timeout-established",
    "conntrack.udpTimeout": "conntrack-udp-timeout",
    "nftables.minSyncPeriod": "min-sync-period",
}


@pytest.mark.parametrize("field", FLAG_OF_FIELD)
def test_a_field_and_its_flag_accept_the_same_text(field: str, tmp_path: Path) -> None:
    flag, file = FLAG_OF_FIELD[field], tmp_path / "config.conf"
    name = {"bind-address": "node_ip"}.get(flag, flag.replace("-", "_"))
    for text in TEXTS:
        content: object = text.split(",") if field == "nodePortAddresses" else text
        for part in reversed(field.split(".")):
            content = {part: content}
        assert isinstance(content, dict)
        file.write_text(yaml.safe_dump(configuration(**content)))
        assert setting(["--config", str(file)], name) == setting([f"--{flag}={text}"], name), text


def test_default_addresses_are_those_of_kube_proxy_or_loopback() -> None:
    for flags, host in (([], "0.0.0.0"), (["--manifests", "here"], "127.0.0.1")):
        found = listen_addresses(settings_from(["run", *flags]))
        assert found.healthz == SocketAddress(host, 10256)
        assert found.metrics == SocketAddress("127.0.0.1", 10249)


def config_map(key: str = "config.conf", text: str = KUBEADM) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "data": {"kubeconfig.conf": "apiVersion: v1\nkind: Config\n", key: text},
    }


CLUSTER = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n---\n"
FORMS = {
    "ConfigMap of kubeadm": yaml.safe_dump(config_map()),
    "ConfigMap with another key": yaml.safe_dump(config_map("config")),
    "ConfigMap in JSON": json.dumps(config_map()),
    "JSON in a ConfigMap": yaml.safe_dump(config_map(text=json.dumps(yaml.safe_load(KUBEADM)))),
    "several documents": CLUSTER + KUBEADM,
    "several documents in a ConfigMap": yaml.safe_dump(config_map(text=CLUSTER + KUBEADM)),
    "List": yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}, config_map()]}),
    "ConfigMapList": json.dumps({"apiVersion": "v1", "kind": "ConfigMapList", "items": [config_map()]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_formats_of_the_file(tmp_path: Path, form: str) -> None:
    file = tmp_path / "file"
    file.write_text(FORMS[form])
    defaults, warnings = read_configuration(str(file))
    assert warnings == []
    assert defaults["kubeconfig"] == "/var/lib/kube-proxy/kubeconfig.conf"


def test_manifests_override_the_kubeconfig_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(KUBEADM)
    check_daemon(settings_from(["run", "--config", str(file), "-f", "here"]), in_pod=False)
    with pytest.raises(UsageError, match="not from both"):
        check_daemon(settings_from(["run", "--kubeconfig", "/x", "-f", "here"]), in_pod=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("", "contains no KubeProxyConfiguration"),
        ("kind: A\n---\nkind: B", "contains no KubeProxyConfiguration, only A, B"),
        (f"{KUBEADM}---{KUBEADM}", "contains 2 KubeProxyConfiguration"),
        ("a: [", "not YAML"),
        ("- a", "contains no KubeProxyConfiguration"),
        ("kind: ConfigMap\ndata: [x]", "contains no KubeProxyConfiguration, only ConfigMap"),
        ("kind: ConfigMap\ndata: {other: x}", "contains no KubeProxyConfiguration, only ConfigMap"),
        (
            "kind: ConfigMap\ndata: {config.conf: '[ # KubeProxyConfiguration'}",
            "config.conf: config.conf: line 2: not YAML",
        ),
        (
            "kind: KubeProxyConfiguration\napiVersion: v1",
            "apiVersion: 'v1' is not kubeproxy.config.k8s.io/v1alpha1",
        ),
        (
            yaml.safe_dump(configuration(clusterCIDR=1, detectLocalMode=2)),
            "clusterCIDR: Expected .*; detectLocalMode: ",
        ),
    ],
)
def test_an_invalid_file_is_an_error(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "config.conf"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_configuration(str(file))
    assert str(file) in str(caught.value)


def test_configz_shows_the_settings_of_run() -> None:
    flags = ["--node-ip", "192.0.2.7,2001:db8::7", "--cluster-cidr", "10.244.0.0/16", "--sync-period", "1m"]
    found = json.loads(configz(settings_from(["run", "--node-name", "n1", *flags])))["kproxy"]
    assert found.keys() == {flag.name for flag in flags_of("run")}
    expected = {
        "node-name": "n1",
        "node-ip": ["192.0.2.7", "2001:db8::7"],
        "cluster-cidr": ["10.244.0.0/16"],
        "sync-period": 60.0,
        "masquerade-all": False,
        "metrics-bind-address": "127.0.0.1:10249",
        "nodeport-addresses": None,
        "probe-exec": "netns",
        "load-balancer-pool": "",
        "service-node-port-range": [30000, 32767],
        "detect-local-mode": "ClusterCIDR",
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("fields", "flags", "message"),
    [
        (
            {"detectLocalMode": "BridgeInterface"},
            "",
            "detectLocalMode BridgeInterface needs detectLocal.bridge",
        ),
        ({"nftables": {"syncPeriod": "1ms"}}, "", "syncPeriod must be at least 1s"),
        ({}, "--sync-period=1ms", "--sync-period must be at least 1s"),
        (
            {},
            "--detect-local-mode=InterfaceNamePrefix",
            "--detect-local-mode InterfaceNamePrefix needs --pod-interface-name-prefix",
        ),
        (
            {"clusterCIDR": "10.0.0.0/8"},
            "--load-balancer-pool=10.1.0.0/24",
            "and clusterCIDR 10.0.0.0/8 overlap",
        ),
    ],
)
def test_an_error_names_the_flag_or_field(
    tmp_path: Path, fields: dict[str, Any], flags: str, message: str
) -> None:
    file = tmp_path / "file"
    file.write_text(yaml.safe_dump(configuration(**fields)))
    settings = settings_from(["run", "--config", str(file), *flags.split()])
    with pytest.raises(UsageError, match=message):
        check_daemon(settings, in_pod=True)
