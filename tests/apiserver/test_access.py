"""Tokens, client certificates and denials; and the files for clients."""

from __future__ import annotations

import json
import os
import select
import ssl
import subprocess
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.apiserver import ApiServer, kubeconfig
from tests.apiserver.access import Denial
from tests.apiserver.certificates import Authority, KeyPair
from tests.apiserver.client import Client
from tests.apiserver.objects import SERVICES, service
from tests.apiserver.proxy import Proxy


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def trusting(authority: Authority, pair: KeyPair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if pair:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


def test_tokens_and_their_rotation() -> None:
    with ApiServer(tokens=["one"]) as api:
        one, two, none = (Client(api.url, token=token) for token in ("one", "two", ""))
        with one, two, none:
            assert [client.get(SERVICES).status for client in (one, two, none)] == [200, 401, 403]
            api.access.rotate("two")
            assert [client.get(SERVICES).status for client in (one, two, none)] == [401, 200, 403]
            assert none.get("/readyz").status == 200
        assert api.log[0].authorization == "Bearer one"
        assert api.log[0].user_agent == "test"


def test_denials(api: ApiServer, client: Client) -> None:
    api.access.denied.add(Denial("watch", "services"))
    assert client.get(SERVICES).status == 200
    answer = client.get(SERVICES, watch=1)
    assert (answer.status, answer.json["reason"]) == (403, "Forbidden")
    assert '"system:anonymous" cannot watch resource "services"' in answer.json["message"]
    api.access.denied.clear()
    assert client.get(SERVICES, watch=1, timeoutSeconds=1).status == 200


def test_tls_with_token_and_with_certificate(authority: Authority) -> None:
    pair = authority.client("system:node:n1")
    with ApiServer(tls=authority, tokens=["one"]) as api:
        api.access.denied.add(Denial("list", "nodes"))
        assert api.url.startswith("https://127.0.0.1:")
        with Client(api.url, context=trusting(authority), token="one") as client:
            assert client.get(SERVICES).status == 200
        with Client(api.url, context=trusting(authority)) as client:
            answer = client.get(SERVICES)
            assert (answer.status, answer.json["details"]) == (403, {"kind": "services"})
        with Client(api.url, context=trusting(authority, pair)) as client:
            assert client.get(SERVICES).status == 200
            assert '"system:node:n1"' in client.get("/api/v1/nodes").json["message"]


def test_an_unknown_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    foreign = Authority(tmp_path, "foreign-ca")
    with ApiServer(tls=authority) as api:
        with (
            pytest.raises(ssl.SSLCertVerificationError),
            Client(api.url, context=trusting(foreign)) as client,
        ):
            client.get(SERVICES)
        context = trusting(authority, foreign.client())
        with pytest.raises((ssl.SSLError, ConnectionError)), Client(api.url, context=context) as client:
            client.get(SERVICES)


def test_a_watch_over_tls_ends_by_reset(authority: Authority) -> None:
    with (
        ApiServer(tls=authority) as api,
        Client(api.url, context=trusting(authority)) as client,
        client.watch(SERVICES) as events,
    ):
        api.wait(lambda: api.watches.of("services"))
        api.create(service())
        assert next(events)["type"] == "ADDED"
        api.watches.reset()
        # Not with `next`: the ssl module treats a RST as the end of the stream.
        raw = client.connection.sock
        assert raw
        assert select.select([raw], [], [], 60)[0]
        with pytest.raises(ConnectionResetError):
            os.read(raw.fileno(), 1)


def test_a_kubeconfig(authority: Authority, tmp_path: Path) -> None:
    path = kubeconfig.write_kubeconfig(
        tmp_path / "config",
        "https://127.0.0.1:6443",
        kubeconfig.client_certificate(authority.client(), inline=True),
        ca=authority.certificate,
        inline=True,
        proxy_url="http://127.0.0.1:3128",
    )
    content = json.loads(path.read_text())
    assert content["clusters"][0]["cluster"].keys() == {
        "server",
        "certificate-authority-data",
        "proxy-url",
    }
    assert content["users"][0]["user"].keys() == {"client-certificate-data", "client-key-data"}


def test_an_exec_plugin_prints_a_credential(tmp_path: Path) -> None:
    user = kubeconfig.exec_plugin(tmp_path, "one", expires="2030-01-01T00:00:00Z")
    (tmp_path / "token").write_text("two")
    printed = subprocess.run([user["exec"]["command"]], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed)["status"] == {"token": "two", "expirationTimestamp": "2030-01-01T00:00:00Z"}
    assert (tmp_path / "calls").read_text() == "call\n"


def test_the_files_and_variables_of_a_pod(authority: Authority, tmp_path: Path) -> None:
    with ApiServer(tls=authority, tokens=["one"]) as api:
        environment = kubeconfig.write_in_cluster(
            tmp_path / "serviceaccount", authority.certificate, "one", api.host, api.port
        )
        context = ssl.create_default_context(cafile=tmp_path / "serviceaccount/ca.crt")
        url = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format(**environment)
        token = (tmp_path / "serviceaccount/token").read_text()
        with Client(url, context=context, token=token) as client:
            assert client.get(SERVICES).status == 200


def test_a_proxy(authority: Authority) -> None:
    with ApiServer(tls=authority, tokens=["one"]) as api, Proxy() as proxy:
        with Client(proxy.url) as client:
            assert client.get(SERVICES).status == 405
        parts = urlsplit(proxy.url)
        connection = HTTPSConnection(str(parts.hostname), parts.port, timeout=60, context=trusting(authority))
        connection.set_tunnel(api.host, api.port)
        connection.request("GET", SERVICES, headers={"Authorization": "Bearer one"})
        assert connection.getresponse().status == 200
        connection.close()
        assert proxy.connected == [f"127.0.0.1:{api.port}"]
        assert proxy.credentials == [""]
