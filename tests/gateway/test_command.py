"""`kproxy gateway`: what it prints, and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kproxy.cli import main
from kproxy.gateway.certificates import examine
from tests.gateway.running import check
from tests.gateway.world import HERE
from tests.unit.test_house import ROOT

KUBIA = str(HERE / "kubia.yaml")


def run(tmp_path: Path, *words: str) -> int:
    return main(["gateway", *words, "--state-dir", str(tmp_path)])


def test_the_routes_are_those_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "routes", "-f", KUBIA) == 0
    page = (ROOT / "docs" / "ingress.md").read_text()
    assert f"$ kproxy gateway routes -f kubia.yaml\n{capsys.readouterr().out}```" in page


def test_what_render_prints_is_what_haproxy_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "render", "-f", KUBIA) == 0
    printed = capsys.readouterr()
    folder = tmp_path / "haproxy"
    folder.mkdir()
    for part in printed.out.split("### ")[1:]:
        name, _, text = part.partition("\n")
        (folder / name).write_text(text.removesuffix("\n"))
    for status in (400, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504):
        (folder / f"{status}.html").write_text("page")
    assert check(folder / "haproxy.cfg") == ""
    assert (folder / "prefix.map").read_text() == "http/kubia.example.com/ default.kubia.80\n"
    assert "    server s1 10.0.0.1:8080 weight 1\n" in (folder / "haproxy.cfg").read_text()
    assert run(tmp_path, "render", "-f", KUBIA) == 0
    assert capsys.readouterr() == printed


def test_a_problem_is_printed_and_the_status_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = (
        Path(KUBIA)
        .read_text()
        .replace("{name: kubia}\nspec:\n  rules", "{name: kubia, annotations: {X}}\nspec:\n  rules")
    )
    file = tmp_path / "bad.yaml"
    file.write_text(bad.replace("{X}", "{kproxy.io/proxy-body-size: much}"))
    assert run(tmp_path, "routes", "-f", str(file)) == 1
    printed = capsys.readouterr()
    assert printed.err == (
        f"kproxy: {file}: Ingress default/kubia: metadata.annotations[kproxy.io/proxy-body-size]: "
        "'much' is not a size, for example 8m\n"
    )
    assert printed.out.splitlines()[1].split()[1:5] == ["kubia.example.com", "/*", "<none>", "503"]


def test_a_route_that_is_left_out_is_not_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(Path(KUBIA).read_text().replace("path: /,", "path: /../x,"))
    assert run(tmp_path, "routes", "-f", str(file)) == 1
    printed = capsys.readouterr()
    assert "'/../x' contains . or .. as an element" in printed.err
    assert "kubia" not in printed.out


def test_the_problems_of_a_file_are_limited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = ", ".join(f"{{hosts: [h{n}.example], secretName: s{n}}}" for n in range(100))
    file = tmp_path / "many.yaml"
    text = Path(KUBIA).read_text()
    file.write_text(text.replace("spec:\n  rules:", f"spec:\n  tls: [{entries}]\n  rules:"))
    assert run(tmp_path, "render", "-f", str(file)) == 1
    errors = capsys.readouterr().err.splitlines()
    assert (len(errors), errors[-1]) == (51, f"kproxy: {file}: and 50 more problems")


def test_a_certificate_that_cert_prints_is_used_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "cert", "--host", "kubia.example.com,*.example.org") == 0
    secret = capsys.readouterr().out
    tls = "spec:\n  tls: [{hosts: [kubia.example.com], secretName: kubia.example.com}]\n  rules:"
    file = tmp_path / "tls.yaml"
    file.write_text(Path(KUBIA).read_text().replace("spec:\n  rules:", tls) + f"\n---\n{secret}")
    assert run(tmp_path, "render", "-f", str(file), "--gateway-ports", "8080,8443") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert (
        "### default_kubia.example.com.pem\n# a certificate and its key, which are not shown\n" in printed.out
    )
    assert "default_kubia.example.com.pem kubia.example.com\n" in printed.out
    assert "bind :::8443 v6only name https ssl strict-sni crt-list https.crtlist" in printed.out
    assert "PRIVATE KEY" not in printed.out
    assert yaml.safe_load(secret)["data"]["tls.key"] not in printed.out


@pytest.mark.parametrize("command", ["routes", "render"])
def test_objects_that_it_does_not_use_are_named_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run(tmp_path, command, "-f", KUBIA) == 0
    used = capsys.readouterr()
    file = tmp_path / "more.yaml"
    more = ("GRPCRoute", "a"), ("GRPCRoute", "b"), ("TLSRoute", "a"), ("BackendTLSPolicy", "a")
    version = "apiVersion: gateway.networking.k8s.io/v1"
    texts = (f"{version}\nkind: {kind}\nmetadata: {{name: {name}}}" for kind, name in more)
    file.write_text("\n---\n".join((Path(KUBIA).read_text(), *texts)))
    assert run(tmp_path, command, "-f", str(file)) == 0
    printed = capsys.readouterr()
    assert (used.err, printed.err) == ("", "ignored: 1 BackendTLSPolicy, 2 GRPCRoute, 1 TLSRoute\n")
    assert printed.out == used.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["render"], "kproxy gateway render and routes need -f with files or folders."),
        (["cert"], "kproxy gateway cert needs the host of the certificate: --host HOST[,HOST]."),
        (["cert", "--host", "a b"], "--host: 'a b' is not a host name."),
        (["cert", "--host", "a/CN=b"], "--host: 'a/cn=b' is not a host name."),
        (["routes", "--gateway-ports", "80,80"], "--gateway-ports: '80,80' is not two different ports"),
    ],
)  # fmt: skip
def test_a_wrong_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(tmp_path, *words) == 2
    assert capsys.readouterr().err.startswith(f"kproxy: {message}")


def test_a_pair_that_is_no_certificate_is_refused() -> None:
    assert examine(b"x", b"y").reason == "tls.crt is not in PEM"
