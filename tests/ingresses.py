"""Manifests for tests of the gateway: Ingresses, and Secrets with certificates."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Sequence
from functools import cache

from tests.support import Manifest

HOST = "web.example.com"


def ingress(
    name: str = "web",
    host: str = HOST,
    service: str = "web",
    paths: Sequence[str] = ("/",),
    annotations: dict[str, str] | None = None,
    **spec: object,
) -> Manifest:
    """An Ingress whose paths lead to port 80 of one Service."""
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rules = [{"path": path, "pathType": "Prefix", "backend": backend} for path in paths]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"rules": [{"host": host, "http": {"paths": rules}}], **spec},
    }


def with_tls(host: str, secret: str, name: str = "tls", service: str = "web") -> Manifest:
    """An Ingress of a host with a certificate, which is served without it, too."""
    plain = {"nginx.ingress.kubernetes.io/ssl-redirect": "false"}
    return ingress(name, host, service, annotations=plain, tls=[{"hosts": [host], "secretName": secret}])


@cache
def certificate(host: str, serial: int = 1) -> tuple[str, str]:
    """A self-signed certificate and its key. Another serial number gives another certificate."""
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", "-", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"),
            *("-days", "30", "-set_serial", str(serial)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    end = "-----END PRIVATE KEY-----\n"
    key, _, crt = made.stdout.partition(end)
    return crt, key + end


def secret(name: str, host: str, serial: int = 1) -> Manifest:
    """A Secret with such a certificate."""
    pair = dict(zip(("tls.crt", "tls.key"), certificate(host, serial), strict=True))
    data = {key: base64.b64encode(value.encode()).decode() for key, value in pair.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "data": data,
    }
