"""Access to the API server: kubeconfigs, service accounts, proxies, and credentials that change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kproxy.sources.cluster.credentials import Credentials, CredentialsError
from tests.apiserver import ApiServer
from tests.apiserver.access import Denial
from tests.apiserver.certificates import Authority
from tests.apiserver.kubeconfig import (
    User,
    client_certificate,
    exec_plugin,
    token,
    token_file,
    write_in_cluster,
)
from tests.apiserver.proxy import Proxy
from tests.cluster.follower import FOLLOWED, Follower, service

PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in PROXY_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[ApiServer]:
    """A server with TLS that accepts the token `first`."""
    with ApiServer(tls=authority, tokens=["first"]) as server:
        server.create(service("web"))
        yield server


def reconnect(api: ApiServer) -> None:
    """End all connections, so that the client sends new requests."""
    api.wait(lambda: len(api.watches.of()) == len(FOLLOWED))
    api.stop()
    api.resume()


@pytest.mark.parametrize("inline", [False, True])
def test_a_token_and_an_authority(
    secure: ApiServer, tmp_path: Path, authority: Authority, inline: bool
) -> None:
    with Follower(secure, tmp_path, user=token("first"), ca=authority.certificate, inline=inline) as follower:
        follower.sees("web")
        assert {seen.authorization for seen in secure.requests()} == {"Bearer first"}


@pytest.mark.parametrize("inline", [False, True])
def test_a_client_certificate(secure: ApiServer, tmp_path: Path, authority: Authority, inline: bool) -> None:
    user = client_certificate(authority.client("kproxy"), inline=inline)
    with Follower(secure, tmp_path, user=user, ca=authority.certificate) as follower:
        follower.sees("web")


def test_a_server_of_another_authority_is_trusted_only_with_insecure_skip_tls_verify(
    secure: ApiServer, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other-ca")
    with Follower(secure, tmp_path, user=token("first"), ca=other.certificate, sync=False) as follower:
        follower.wait(lambda: "certificate verify failed" in " ".join(follower.messages()))
        assert not follower.source.synced
    with Follower(secure, tmp_path, user=token("first"), insecure=True) as follower:
        follower.sees("web")


def test_the_name_in_the_certificate_may_be_another(tmp_path: Path, authority: Authority) -> None:
    with ApiServer(host="0.0.0.0", tls=authority, tokens=["first"]) as api:
        api.create(service("web"))
        url = f"https://127.0.0.2:{api.port}"
        arguments: dict[str, Any] = {"user": token("first"), "ca": authority.certificate, "url": url}
        with Follower(api, tmp_path, sync=False, **arguments) as follower:
            follower.wait(lambda: "certificate is not valid for" in " ".join(follower.messages()))
        with Follower(api, tmp_path, server_name="kubernetes.default.svc", **arguments) as follower:
            follower.sees("web")


def test_a_token_file_that_changes(secure: ApiServer, tmp_path: Path, authority: Authority) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    with Follower(secure, tmp_path, user=token_file(file), ca=authority.certificate) as follower:
        file.write_text("second\n")
        secure.access.rotate("second")
        reconnect(secure)
        secure.create(service("new"))
        follower.changed("new")
        assert secure.requests()[-1].authorization == "Bearer second"


def test_a_pod_whose_token_is_rotated(
    secure: ApiServer, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "serviceaccount"
    environment = write_in_cluster(account, authority.certificate, "first", secure.host, secure.port)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with Follower(secure, tmp_path, credentials=Credentials(None, account)) as follower:
        follower.sees("web")
        (account / "token").write_text("second")
        secure.access.rotate("second")
        reconnect(secure)
        secure.create(service("new"))
        follower.changed("new")


@pytest.mark.parametrize("expires", [None, datetime.now(UTC) + timedelta(days=1)])
def test_a_plugin_runs_again_when_the_server_rejects_its_token(
    secure: ApiServer, tmp_path: Path, authority: Authority, expires: datetime | None
) -> None:
    user = exec_plugin(tmp_path, "first", expires=rfc3339(expires) if expires else None)
    with Follower(secure, tmp_path, user=user, ca=authority.certificate) as follower:
        assert calls(tmp_path) == 1
        (tmp_path / "token").write_text("second")
        secure.access.rotate("second")
        reconnect(secure)
        secure.create(service("new"))
        follower.changed("new")
        assert calls(tmp_path) == 2


def test_a_plugin_runs_again_when_its_token_expires(
    secure: ApiServer, tmp_path: Path, authority: Authority
) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=2)  # kproxy renews tokens that expire this soon
    user = exec_plugin(tmp_path, "first", expires=rfc3339(soon))
    with Follower(secure, tmp_path, user=user, ca=authority.certificate):
        assert calls(tmp_path) > 1
        assert {seen.authorization for seen in secure.requests()} == {"Bearer first"}


def rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


def test_a_plugin_that_returns_a_certificate(secure: ApiServer, tmp_path: Path, authority: Authority) -> None:
    pair = authority.client("by-plugin")
    status = {"clientCertificateData": pair.certificate.read_text(), "clientKeyData": pair.key.read_text()}
    version = "client.authentication.k8s.io/v1"
    credential = tmp_path / "credential"
    credential.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
    user = {"exec": {"apiVersion": version, "command": "cat", "args": [str(credential)]}}
    with Follower(secure, tmp_path, user=user, ca=authority.certificate) as follower:
        follower.sees("web")


def test_the_error_of_a_plugin_is_reported(secure: ApiServer, tmp_path: Path, authority: Authority) -> None:
    user = exec_plugin(tmp_path, "first")
    script = Path(user["exec"]["command"])
    good = script.read_text()
    script.write_text("#!/bin/sh\necho the vault is closed >&2\nexit 3\n")
    with Follower(secure, tmp_path, user=user, ca=authority.certificate, sync=False) as follower:
        message = follower.wait(follower.messages)[0]
        assert str(tmp_path / "kubeconfig") in message
        assert "the vault is closed" in message
        script.write_text(good)
        follower.wait(lambda: follower.source.synced)


def test_rejected_credentials_are_a_problem_until_they_are_accepted(
    secure: ApiServer, tmp_path: Path, authority: Authority
) -> None:
    secure.access.rotate("other")
    with Follower(secure, tmp_path, user=token("first"), ca=authority.certificate, sync=False) as follower:
        message = "cluster: cannot use the API server: 401 Unauthorized: Unauthorized"
        assert follower.wait(follower.messages) == [message]
        secure.access.rotate("first")
        follower.wait(lambda: follower.source.synced)
        follower.wait(lambda: follower.messages() == [])


def test_a_forbidden_request_is_a_problem_until_it_is_allowed(
    secure: ApiServer, tmp_path: Path, authority: Authority
) -> None:
    secure.access.denied |= {Denial(verb, "endpointslices") for verb in ("list", "watch")}
    with Follower(secure, tmp_path, user=token("first"), ca=authority.certificate, sync=False) as follower:
        follower.wait(follower.messages)
        assert "403 Forbidden: endpointslices.discovery.k8s.io is forbidden: User" in follower.messages()[0]
        assert not follower.source.synced
        secure.access.denied.clear()
        follower.wait(lambda: follower.source.synced)


def test_a_missing_kubeconfig_is_a_problem_until_it_exists(
    secure: ApiServer, tmp_path: Path, authority: Authority
) -> None:
    config = tmp_path / "kubeconfig"
    follower = Follower(secure, tmp_path, user=token("first"), ca=authority.certificate, sync=False)
    later = config.rename(tmp_path / "later")
    with follower:
        (message,) = follower.wait(follower.messages)
        assert message.startswith(f"cluster: cannot use the API server: {config}: ")
        later.rename(config)
        follower.wait(lambda: follower.source.synced)


@pytest.mark.parametrize("content", ["", "{}", "[]", "clusters: 5", "\tno: yaml", "current-context: x"])
def test_an_invalid_kubeconfig_is_a_problem(secure: ApiServer, tmp_path: Path, content: str) -> None:
    config = tmp_path / "config"
    config.write_text(content)
    with Follower(secure, tmp_path, credentials=Credentials(config), sync=False) as follower:
        (message,) = follower.wait(follower.messages)
        assert message.startswith(f"cluster: cannot use the API server: {config}: ")


def test_a_kubeconfig_that_becomes_invalid_changes_nothing_until_it_is_valid(
    secure: ApiServer, tmp_path: Path, authority: Authority
) -> None:
    with Follower(secure, tmp_path, user=token("first"), ca=authority.certificate) as follower:
        config = tmp_path / "kubeconfig"
        valid = config.read_text()
        config.write_text("{")
        secure.access.rotate("second")  # it is read again after a 401
        reconnect(secure)
        follower.wait(lambda: any(str(config) in message for message in follower.messages()))
        assert follower.names() == ["web"]
        config.write_text(valid.replace("first", "second"))
        secure.create(service("new"))
        follower.changed("new")
        follower.wait(lambda: not follower.messages())


def test_a_proxy_of_the_kubeconfig(secure: ApiServer, tmp_path: Path, authority: Authority) -> None:
    with Proxy() as proxy:
        arguments: dict[str, Any] = {
            "user": token("first"),
            "ca": authority.certificate,
            "proxy_url": proxy.url,
        }
        with Follower(secure, tmp_path, **arguments) as follower:
            follower.sees("web")
        assert set(proxy.connected) == {f"127.0.0.1:{secure.port}"}


@pytest.mark.parametrize(("variable", "used"), [("HTTPS_PROXY", True), ("NO_PROXY", False)])
def test_a_proxy_of_the_environment(
    secure: ApiServer,
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    used: bool,
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        if variable == "NO_PROXY":
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with Follower(secure, tmp_path, user=token("first"), ca=authority.certificate) as follower:
            follower.sees("web")
        assert bool(proxy.connected) is used


def test_a_proxy_of_another_kind_is_refused(secure: ApiServer, tmp_path: Path) -> None:
    user: User = token("first")
    with Follower(secure, tmp_path, user=user, proxy_url="socks5://127.0.0.1:1", sync=False) as follower:
        follower.wait(follower.messages)
        message = "proxy socks5://127.0.0.1:1 is not supported; expected an http:// URL"
        assert message in follower.messages()[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "kubeconfig: No such file or directory"),
        ("a: [", "kubeconfig: line 2: not YAML: did not find expected node content"),
    ],
)
def test_the_error_of_an_unreadable_kubeconfig_is_one_line(
    tmp_path: Path, content: str | None, expected: str
) -> None:
    file = tmp_path / "kubeconfig"
    if content is not None:
        file.write_text(content)
    with pytest.raises(CredentialsError) as error:
        Credentials(file).load()
    assert expected in str(error.value)
    assert "\n" not in str(error.value)
