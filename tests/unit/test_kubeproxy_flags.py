"""The flags of kube-proxy 1.36: `run` takes each, with its effect or a line that says why it has none."""

from __future__ import annotations

from typing import Any

import pytest

import kproxy
from kproxy.cli import main
from kproxy.cli.parser import parse
from kproxy.settings.flags import flags_of
from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS
from kproxy.settings.text import SocketAddress, addresses, networks
from kproxy.settings.verbs import VERBS
from kproxy.sources.cluster.core.formats import JSON, PROTOBUF

OWN = {spelling for flag in flags_of("run") for spelling in flag.spellings}

# All that `kube-proxy --help` lists, each with a value as it can be typed.
ALL = """
--bind-address=0.0.0.0 --bind-address-hard-fail --cleanup --cluster-cidr=10.244.0.0/16 --config=/dev/null
--config-sync-period=15m0s --conntrack-max-per-core=32768 --conntrack-min=131072 --conntrack-tcp-be-liberal
--conntrack-tcp-timeout-close-wait=1h0m0s --conntrack-tcp-timeout-established=24h0m0s
--conntrack-udp-timeout=30s --conntrack-udp-timeout-stream=3m --detect-local-mode=NodeCIDR
--feature-gates=AllAlpha=false --healthz-bind-address=0.0.0.0:10256 --healthz-port=10256
--hostname-override=N1 --init-only --iptables-localhost-nodeports=true --iptables-masquerade-bit=14
--iptables-min-sync-period=1s --iptables-sync-period=30s --ipvs-exclude-cidrs=10.0.0.0/8
--ipvs-min-sync-period=1s --ipvs-scheduler=rr --ipvs-strict-arp --ipvs-sync-period=30s --ipvs-tcp-timeout=1s
--ipvs-tcpfin-timeout=1s --ipvs-udp-timeout=1s --kube-api-burst=10 --kube-api-content-type=application/json
--kube-api-qps=5 --kubeconfig=/kubeconfig --log-flush-frequency=5s --log-json-info-buffer-size=0
--log-json-split-stream --log-text-info-buffer-size=0 --log-text-split-stream --logging-format=text
--masquerade-all --master=https://192.0.2.1 --metrics-bind-address=127.0.0.1:10249 --metrics-port=10249
--nodeport-addresses=primary --oom-score-adj=-999 --pod-bridge-interface=cni0
--pod-interface-name-prefix=veth --profiling --proxy-mode=iptables --show-hidden-metrics-for-version=1.35
-v=2 --version --vmodule=proxier=4 --write-config-to=/dev/null
"""
COMMAND_LINE = ALL.split()
ENDING = {"--cleanup", "--version", "--write-config-to=/dev/null"}


@pytest.mark.parametrize("word", [word for word in COMMAND_LINE if word not in ENDING])
@pytest.mark.parametrize("spelling", ["{}={}", "{} {}"], ids=["equals", "space"])
def test_every_flag_has_an_effect_or_prints_why_not(word: str, spelling: str) -> None:
    name, _, value = word.partition("=")
    is_switch = value in ("", "true")
    words = [word] if is_switch else spelling.format(name, value).split(" ")
    call = parse(["run", *words])
    quiet = name in OWN | {"-v", "--healthz-port", "--metrics-port", "--hostname-override", "--bind-address"}
    quiet |= name in ("--iptables-sync-period", "--iptables-min-sync-period")
    assert len(call.warnings) == (0 if quiet else 1)
    assert all(line.startswith(f"{name} has no effect: ") for line in call.warnings)


def test_all_flags_together_are_accepted() -> None:
    call = parse(["run", *(word for word in COMMAND_LINE if word not in ENDING)])
    assert call.flags["node_name"] == "n1"
    assert call.flags["cluster_cidr"] == networks("10.244.0.0/16")


EFFECTS: dict[str, dict[str, Any]] = {
    "--hostname-override= Node-1 ": {"node_name": "node-1"},
    "--hostname-override=": {},
    "--hostname-override=n1 --node-name=n2": {"node_name": "n2"},
    "--node-name=n2 --hostname-override=n1": {"node_name": "n2"},
    "--bind-address=::": {},
    "--bind-address=": {},
    "--bind-address=192.0.2.7": {"node_ip": addresses("192.0.2.7")},
    "--healthz-port=0": {"healthz_bind_address": None},
    "--healthz-port=5": {"healthz_bind_address": SocketAddress("0.0.0.0", 5)},
    "--metrics-port=5": {"metrics_bind_address": SocketAddress("127.0.0.1", 5)},
    "--iptables-sync-period=1m --iptables-min-sync-period=0s": {"sync_period": 60.0, "min_sync_period": 0.0},
    "--proxy-mode=nftables": {},
    "--profiling=false": {},
    "--kube-api-content-type=": {"kube_api_content_type": PROTOBUF},
    "--kube-api-content-type=application/json": {"kube_api_content_type": JSON},
    "--cluster-cidr= --nodeport-addresses=": {"cluster_cidr": (), "nodeport_addresses": None},
    "--cluster-cidr=10.244.1.0/16": {"cluster_cidr": networks("10.244.0.0/16")},
    "--nodeport-addresses=localhost,all": {"nodeport_addresses": networks("0.0.0.0/0,::/0")},
    "--nodeport-addresses=localhost": {"nodeport_addresses": ()},
    "--nodeport-addresses=primary,localhost": {"nodeport_addresses": None},
    "--healthz-bind-address=192.0.2.7": {"healthz_bind_address": SocketAddress("192.0.2.7", 10256)},
    "--metrics-bind-address=::": {"metrics_bind_address": SocketAddress("::", 10249)},
    "-v=2": {},
    "-v2": {},
    "-v 2": {},
    "--v 2": {},
    "--v=0": {},
    "-v": {"verbose": True},
    "-v=true": {"verbose": True},
    "-v=4": {"verbose": True},
    "--v=10": {"verbose": True},
    "-v -f x": {"verbose": True, "manifests": ("x",)},
}


@pytest.mark.parametrize(("arguments", "flags"), EFFECTS.items(), ids=EFFECTS)
def test_effects(arguments: str, flags: dict[str, Any]) -> None:
    words = [arguments] if " Node" in arguments else arguments.split()
    call = parse(["run", *words])
    assert (call.flags, call.warnings, call.operands) == (flags, (), ())


ERRORS = {
    "--proxy-mode=userspace": "--proxy-mode: 'userspace' is not one of iptables, ipvs, nftables.",
    "--hostname-override= ": "--hostname-override: ' ' is not a name.",
    "--node-ip=192.0.2.7,::": "--node-ip: :: is not the address of a host.",
    "--nodeport-addresses=primary,10.0.0.0/8": (
        "--nodeport-addresses: primary cannot be combined with other ranges."
    ),
    "--bind-address=n1": "--bind-address: 'n1' does not appear to be an IPv4 or IPv6 address.",
    "--healthz-port=99999": "--healthz-port: '99999' is not a port.",
    "--iptables-sync-period=30": "--iptables-sync-period: '30' is not a duration such as 30s or 1m30s.",
    "--kube-api-content-type=application/cbor": (
        "--kube-api-content-type: 'application/cbor' is not one of "
        "application/vnd.kubernetes.protobuf, application/json."
    ),
    "--v=high": "--v: 'high' is not a number.",
    "--write-config-to=x": "--write-config-to: kproxy does not write its configuration to a file.",
    "--hostname-overide=x": "Unknown flag --hostname-overide. Did you mean --hostname-override?",
}


@pytest.mark.parametrize(("word", "message"), ERRORS.items(), ids=ERRORS)
def test_invalid_values(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", word]) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"kproxy: {message}"


def test_version_and_cleanup_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--version"]) == 0
    out, err = capsys.readouterr()
    assert out == f"kproxy {kproxy.__version__}\n"
    assert err == ""
    call = parse(["run", "--cleanup", "--v=2", "--state-dir", "/x"])
    assert (call.verb, call.flags) == (VERBS["cleanup"], {"state_dir": "/x"})
    assert parse(["run", "--cleanup=false"]).verb is VERBS["run"]


@pytest.mark.parametrize("verb", ["sync", "compile"])
def test_other_verbs_reject_them(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "-f", "x", "--hostname-override", "n1"]) == 2
    assert "Unknown flag --hostname-override." in capsys.readouterr().err


def test_no_flag_is_listed_twice() -> None:
    names = [flag.name for flag in KUBE_PROXY_FLAGS]
    assert len(names) == len(set(names))
    assert not set(names) & OWN
    assert not {flag.param for flag in KUBE_PROXY_FLAGS} & {flag.field for flag in flags_of("run")}
