"""The benchmark of requests counts what passes, and starts a kube-proxy that is named to it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from netns_lab.netns import in_fresh_namespace

from bench.api import __main__ as bench
from bench.api import clients, relay
from bench.process import Failed
from tests.apiserver import ApiServer
from tests.apiserver.certificates import Authority

STAND_IN = f"""#!{sys.executable}
import http.server, json, subprocess, sys, urllib.request
flags = dict(flag[2:].split("=", 1) for flag in sys.argv[1:])
assert flags["proxy-mode"] == "nftables", flags
server = json.load(open(flags["kubeconfig"]))["clusters"][0]["cluster"]["server"]
items = json.load(urllib.request.urlopen(server + "/api/v1/services"))["items"]
subprocess.run(["nft", "add table ip kube-proxy; add map ip kube-proxy service-ips"
    " {{ type ipv4_addr . inet_proto . inet_service : verdict; }}"], check=True)
for item in items:
    key = item["spec"]["clusterIP"] + " . tcp . 80"
    subprocess.run(["nft", f"add element ip kube-proxy service-ips {{{{ {{key}} : drop }}}}"], check=True)
class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        name = b"\\nkubeproxy_sync_proxy_rules_last_timestamp_seconds"
        self.wfile.write(name + b'{{ip_family="IPv4"}} 1.8e+09')
host, port = flags["metrics-bind-address"].split(":")
http.server.HTTPServer((host, int(port)), Metrics).serve_forever()
"""
"""It lists the Services and programs them, and then only serves the metric of its last change."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "CHANGES", 5)
    monkeypatch.setattr(relay, "QUIET", 0.3)


@pytest.mark.lab
def test_all_clients_are_measured(tmp_path: Path) -> None:
    program = tmp_path / "kube-proxy"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    found = in_fresh_namespace(lambda: bench.measure_all(30, program, lambda _: None))
    streamed, in_json, paged, _, other = found
    assert [cost.client for cost in found] == [
        *("kproxy", "kproxy, JSON", "kproxy, in pages", "kproxy, JSON, in pages", "kube-proxy")
    ]
    assert streamed.requests == streamed.connections == 4
    assert paged.requests == 12  # each watch is refused as a stream, then there are a list and another watch
    assert (other.requests, other.connections, other.changes) == (1, 1, 0)
    assert 15_000 < streamed.start < in_json.start
    assert 5 * 500 < streamed.changes < in_json.changes
    assert paged.changes > 5 * 500


@pytest.mark.lab
def test_a_kube_proxy_that_ends_is_an_error(tmp_path: Path) -> None:
    program = tmp_path / "kube-proxy"
    program.write_text("#!/bin/sh\necho cannot start >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(Failed, match="cannot start"):
        in_fresh_namespace(lambda: bench.measure_all(3, program, lambda _: None))


@pytest.mark.parametrize("kind", clients.KINDS)
def test_clients_that_are_refused_are_an_error(kind: clients.Kind, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with (
        ApiServer(tls=authority, tokens=["another"]) as server,
        pytest.raises(Failed, match="a client has ended"),
        clients.following(kind, 2, server.port, authority.certificate) as started,
    ):
        # 42: newer versions of curl end the other transfers of a client, and the last one to end counts.
        assert {process.wait(30) for process in started} <= {22, 42}
