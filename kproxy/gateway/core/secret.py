"""The manifest of a Secret with a certificate, as `kubectl create secret tls` makes it."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Sequence


def secret_manifest(namespace: str, hosts: Sequence[str], chain: bytes, key: bytes) -> str:
    """Return YAML. The Secret has the name of its first host, `wildcard.a.b` for `*.a.b`."""
    name = hosts[0].replace("*", "wildcard", 1)
    return f"""\
# A self-signed certificate for {", ".join(hosts)}.
apiVersion: v1
kind: Secret
metadata:
  name: {name}
  namespace: {namespace}
type: kubernetes.io/tls
data:
  tls.crt: {_base64(chain)}
  tls.key: {_base64(key)}
"""


def _base64(content: bytes) -> str:
    return b2a_base64(content, newline=False).decode()
