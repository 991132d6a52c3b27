"""What kproxy reads in a kubeconfig, in the output of a credential plugin, and in the environment."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from kproxy.limits import PLUGIN_SECONDS
from kproxy.sources.cluster import plugin
from kproxy.sources.cluster.core.certificates import Validity, validities
from kproxy.sources.cluster.credentials import Credentials, CredentialsError
from kproxy.sources.cluster.proxies import proxy_of_environment

V1 = "client.authentication.k8s.io/v1"


def write(folder: Path, user: Any = None, cluster: Any = None, **rest: Any) -> Path:
    """Write a kubeconfig of one context. `rest` replaces its fields."""
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://192.0.2.1:6443/", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {}}],
        **rest,
    }
    path = folder / "kubeconfig"
    path.write_text(json.dumps(content))
    return path


def header(folder: Path, user: Any) -> str | None:
    credentials = Credentials(write(folder, user))
    credentials.load()
    return credentials.authorization()


def check_failure(path: Path) -> str:
    with pytest.raises(CredentialsError) as error:
        Credentials(path).check()
    return str(error.value).removeprefix(f"{path}: ")


def failure(path: Path) -> str:
    with pytest.raises(CredentialsError) as error:
        Credentials(path).load()
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({}, None),
        ({"token": "t\n"}, "Bearer t"),
        ({"username": "me", "password": "x:y"}, f"Basic {b64encode(b'me:x:y').decode()}"),
        ({"token": "t", "username": "me", "password": "x"}, "Bearer t"),
        ({"token": "t", "tokenFile": "file"}, "Bearer from file"),
    ],
)
def test_the_authorization_of_a_user(user: Any, expected: str | None, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from file\n")
    assert header(tmp_path, user) == expected


def test_paths_start_at_the_folder_of_the_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t")
    write(tmp_path, {"tokenFile": "token"})
    monkeypatch.chdir(tmp_path.parent)
    credentials = Credentials(Path(tmp_path.name) / "kubeconfig")
    assert credentials.load().server == "http://192.0.2.1:6443"
    monkeypatch.chdir("/")
    assert credentials.authorization() == "Bearer t"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"current-context": ""}, "current-context: is missing: name one of the contexts"),
        ({"current-context": "x"}, "contexts: x is missing, although current-context refers to it"),
        ({"current-context": 5}, "current-context: expected a string, got 5: in quotes"),
        ({"contexts": [{"name": "c"}]}, "contexts[0].context: is missing"),
        ({"clusters": []}, "clusters: k is missing, although context c refers to it"),
        ({"cluster": {"server": "https://a:x443"}}, "server: 'https://a:x443' is not a URL such as https://192.0.2.1:6443"),
        ({"cluster": {"server": "https://[fd00::1"}}, "server: 'https://[fd00::1' is not a URL such as https://192.0.2.1:6443"),
        ({"cluster": {"server": "192.0.2.1:6443"}}, "server: '192.0.2.1:6443' is not a URL such as https://192.0.2.1:6443"),
        ({"clusters": [{"name": "k", "cluster": {"server": "a"}}] * 2}, "clusters: k is there twice"),
        ({"clusters": [{"name": "k", "cluster": {}}]}, "clusters: k: server: is missing"),
        ({"users": None}, "users: u is missing, although context c refers to it"),
        ({"user": {"tokenFile": "none"}}, "tokenFile: {folder}/none: No such file or directory"),
        ({"user": {"tokenFile": "empty"}}, "tokenFile: {folder}/empty is empty"),
        ({"user": {"client-certificate": "none"}}, "client-certificate: {folder}/none: No such file or directory"),
        ({"user": {"client-certificate-data": "YQ=="}}, "client-key: is missing"),
        ({"user": {"auth-provider": {"name": "gcp"}}}, "users: u: auth-provider: gcp is not supported: use an exec plugin"),
        ({"user": {"as": "root"}}, "users: u: as: acting as another user is not supported"),
        ({"user": {"exec": {"command": "x"}}}, "users[0].user.exec.apiVersion: is missing"),
        ({"cluster": {"proxy-url": "https://p"}}, "proxy https://p is not supported; expected an http:// URL"),
        ({"cluster": {"server": "https://a", "certificate-authority-data": "é"}}, "certificate-authority-data: string argument should contain only ASCII characters"),
    ],
)  # fmt: skip
def test_an_error_names_the_field(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    path = write(tmp_path, **changes)
    if "tokenFile" in changes.get("user", {}):
        credentials = Credentials(path)
        credentials.load()
        with pytest.raises(CredentialsError) as error:
            credentials.authorization()
        found = str(error.value).removeprefix(f"{path}: ")
    else:
        found = failure(path)
    assert found == message.format(folder=tmp_path)
    assert check_failure(path) == found


def plugin_user(folder: Path, script: str, **rest: Any) -> dict[str, Any]:
    file = folder / "plugin.sh"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o700)
    return {"exec": {"apiVersion": V1, "command": "./plugin.sh", **rest}}


@pytest.mark.parametrize(
    ("cluster", "user", "fields"),
    [
        ({"certificate-authority-data": "YQ=="}, {}, "certificate-authority: "),
        (
            {},
            {"client-certificate-data": "YQ==", "client-key-data": "YQ=="},
            "client-certificate, client-key: ",
        ),
    ],
)
def test_an_error_of_tls_names_the_fields(cluster: Any, user: Any, fields: str, tmp_path: Path) -> None:
    path = write(tmp_path, user, {"server": "https://a", **cluster})
    assert failure(path).startswith(fields)


def test_a_check_does_not_run_a_plugin(tmp_path: Path) -> None:
    credentials = Credentials(write(tmp_path, plugin_user(tmp_path, "touch ran; exit 1")))
    credentials.check()
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CredentialsError, match="status 1"):
        credentials.load()


def test_a_plugin_is_told_about_the_cluster(tmp_path: Path) -> None:
    script = f"""echo "$KUBERNETES_EXEC_INFO" > info; echo "$1 $EXTRA" > words
echo '{{"apiVersion": "{V1}", "kind": "ExecCredential", "status": {{"token": "t"}}}}'"""
    user = plugin_user(
        tmp_path, script, args=["one"], env=[{"name": "EXTRA", "value": "two"}], provideClusterInfo=True
    )
    config = {"name": plugin.CONFIG, "extension": {"audience": "x"}}
    cluster = {"extensions": [config], "tls-server-name": "api", "certificate-authority-data": "YQ=="}
    credentials = Credentials(write(tmp_path, user, cluster))
    credentials.load()
    assert credentials.authorization() == "Bearer t"
    assert (tmp_path / "words").read_text() == "one two\n"
    assert json.loads((tmp_path / "info").read_text()) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {
            "interactive": False,
            "cluster": {
                "server": "http://192.0.2.1:6443/",
                "tls-server-name": "api",
                "certificate-authority-data": "YQ==",
                "config": {"audience": "x"},
            },
        },
    }


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "exit status 3"),
        ("echo locked >&2; exit 1", "exit status 1: locked"),
        ("echo x", "its output is invalid: JSON is malformed: invalid character (byte 0)"),
        ("""echo '{"apiVersion": "v9", "status": {}}'""", f"its output has apiVersion v9, not {V1}"),
        (f"""echo '{{"apiVersion": "{V1}", "status": {{}}}}'""", "its output has neither a token nor a certificate with its key"),
        ("exec sleep 100", "timed out after 0.01 seconds"),
    ],
)  # fmt: skip
def test_a_plugin_that_fails(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin, "PLUGIN_SECONDS", 0.01 if "sleep" in script else PLUGIN_SECONDS)
    found = failure(write(tmp_path, plugin_user(tmp_path, script)))
    assert found.startswith(f"exec: {tmp_path}/plugin.sh: ")
    assert found.endswith(message)


def test_a_plugin_that_does_not_exist(tmp_path: Path) -> None:
    user = {"exec": {"apiVersion": V1, "command": "no-such-plugin"}}
    assert failure(write(tmp_path, user)) == "exec: no-such-plugin: No such file or directory"


def test_outside_of_a_pod_there_is_no_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CredentialsError, match="this pod's service account: KUBERNETES_SERVICE_HOST"):
        Credentials(None).load()


@pytest.mark.parametrize(
    ("url", "excluded", "used"),
    [
        ("https://10.0.0.1:6443", "", True),
        ("http://10.0.0.1:6443", "", False),
        ("https://10.0.0.1:6443", "*", False),
        ("https://10.0.0.1:6443", "10.0.0.2, 10.0.0.1", False),
        ("https://10.0.0.1:6443", "10.0.0.0/8", False),
        ("https://10.0.0.1:6443", "10.1.0.0/16", True),
        ("https://10.0.0.1:6443", "10.0.0.1:6443", False),
        ("https://10.0.0.1:6443", "10.0.0.1:443", True),
        ("https://[fd00::1]:6443", "fd00::/8", False),
        ("https://[fd00::1]:6443", "[fd00::1]:6443", False),
        ("https://[fd00::1]:6443", "fd00::2", True),
        ("https://api.example.com", "example.com", False),
        ("https://api.example.com", ".example.com", False),
        ("https://api.example.com", "ample.com", True),
        ("https://api.example.com", "api.example.com:443,other", True),
    ],
)
def test_a_proxy_of_the_environment(
    url: str, excluded: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", excluded)
    assert proxy_of_environment(url) == ("http://proxy:3128" if used else None)


CERTIFICATE = Path(__file__).with_name("certificate.pem")
"""Valid for the first day of 2020."""
PERIOD = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")


def test_when_the_certificates_of_a_kubeconfig_expire(tmp_path: Path) -> None:
    data = b64encode(CERTIFICATE.read_bytes()).decode()
    user = {"client-certificate": str(CERTIFICATE), "client-key": "missing"}
    path = write(tmp_path, user, {"certificate-authority-data": data})
    credentials = Credentials.of(path)
    assert credentials.place == path
    found = {name: validities(pem) for name, pem in credentials.certificates()}
    kinds = "certificate-authority", "client-certificate"
    assert found == {f"{kind} of {path}": [Validity(*PERIOD)] for kind in kinds}


def test_when_the_certificate_of_a_service_account_expires(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(CERTIFICATE.read_bytes() * 2)
    ((name, pem),) = Credentials.of(tmp_path).certificates()
    assert (name, validities(pem)) == (str(tmp_path / "ca.crt"), [Validity(*PERIOD)] * 2)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\nMIP/////\n-----END CERTIFICATE-----",
        b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----",
        CERTIFICATE.read_bytes()[:-300] + b"\n-----END CERTIFICATE-----",
    ],
)
def test_a_certificate_that_cannot_be_read_is_left_out(pem: bytes) -> None:
    assert validities(pem) == []


def test_years_of_certificates() -> None:
    """Two digits of a year mean 1950 to 2049; later years have four (RFC 5280)."""

    def der(tag: int, content: bytes) -> bytes:
        return bytes([tag, len(content)]) + content

    times = der(0x17, b"500101000000Z") + der(0x18, b"20500102030405Z")
    signed = der(0xA0, b"") + der(2, b"\1") + der(0x30, b"") + der(0x30, b"") + der(0x30, times)
    pem = b64encode(der(0x30, der(0x30, signed)))
    (found,) = validities(b"-----BEGIN CERTIFICATE-----\n" + pem + b"\n-----END CERTIFICATE-----")
    assert found == Validity("1950-01-01T00:00:00Z", "2050-01-02T03:04:05Z")
