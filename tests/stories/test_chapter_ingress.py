"""The Ingress of the book chapter: a host over HTTP from outside, and with the certificate of a Secret."""

from __future__ import annotations

import base64
import re
import subprocess
from pathlib import Path

import pytest
from netns_lab.lab import Handle, Lab
from netns_lab.manifests import pod_manifests

from tests.stories.chapter import MANIFESTS, POD_CIDR, PODS, SERVICE_CIDR, cluster
from tests.support import Manifest, Running, eventually

pytestmark = pytest.mark.lab
HOST = "kubia.example.com"
HIT = re.compile(r"You've hit (kubia-\w+) on default mux\n")


def curl(client: Handle, address: str, *arguments: str) -> tuple[str, str]:
    """Return what curl writes to standard output, and to standard error. HOST has this address."""
    hosts = (part for port in (80, 443) for part in ("--resolve", f"{HOST}:{port}:{address}"))
    done = client.run(["curl", "-s", "-m", "20", *hosts, *arguments], capture_output=True)
    return done.stdout, done.stderr


def tls_secret(folder: Path) -> Manifest:
    """Create the key and the certificate as the chapter does, and return the Secret."""
    for command in (
        "openssl genrsa -out tls.key 2048",
        f"openssl req -new -x509 -sha256 -key tls.key -out tls.cert -days 3650 -subj /CN={HOST}",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    files = {"tls.crt": folder / "tls.cert", "tls.key": folder / "tls.key"}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": "tls-secret"},
        "data": {name: base64.b64encode(file.read_bytes()).decode() for name, file in files.items()},
    }


def test_the_chapters_ingress_over_http_and_with_tls(tmp_path: Path) -> None:
    flags = ["--gateway", "--service-cidr", SERVICE_CIDR, "--cluster-cidr", POD_CIDR]
    names = {pod.name for pod in PODS}
    with (
        Lab(cluster(*PODS)) as lab,
        Running(lab.node("n1"), tmp_path, flags, cluster_cidr=False, service_cidr=False) as running,
    ):
        client, address = lab.client("outside"), lab.node("n1").address(4)
        running.write("pods", *pod_manifests(lab.topology))

        def create(file: str) -> None:
            (running.manifests / "new").write_text((MANIFESTS / file).read_text())
            (running.manifests / "new").rename(running.manifests / file.replace("-tls", ""))

        # 1. HTTP: the requests reach all pods, and no other host does.
        create("kubia-svc-nodeport.yaml")
        create("kubia-ingress.yaml")
        eventually(lambda: bool(HIT.fullmatch(curl(client, address, f"http://{HOST}/")[0])), running.logged)
        urls = [f"http://{HOST}/"] * 60
        assert set(HIT.findall(curl(client, address, *urls)[0])) == names
        assert "404" in curl(client, address, "-I", f"http://{address}/")[0]
        # As in the chapter, get shows the address on which it is served.
        row = running.view("get", "ingress").splitlines()[1].split()
        assert row[:5] == ["kubia", "<none>", HOST, address, "80"]
        # 2. With a certificate: its name, HTTP/2, and the same pods.
        running.write("secret", tls_secret(tmp_path))
        create("kubia-ingress-tls.yaml")
        eventually(lambda: "hit" in curl(client, address, "-k", f"https://{HOST}/")[0], running.logged)
        body, said = curl(client, address, "-k", "-v", f"https://{HOST}/")
        assert HIT.fullmatch(body)
        for line in (
            r"\*  subject: CN=kubia\.example\.com",
            r"\*  issuer: CN=kubia\.example\.com",
            r"\* ALPN[:,] server accepted (to use )?h2",
            r"< HTTP/2 200 ?",
        ):
            assert re.search(f"(?m)^{line}$", said), said
        # 3. Another name has no certificate, and plain requests are sent to HTTPS.
        assert curl(client, address, "-k", "-v", f"https://{address}/")[0] == ""
        assert f"location: https://{HOST}/" in curl(client, address, "-I", f"http://{HOST}/")[0].lower()
