"""Looks at certificates before HAProxy gets them.

OpenSSL itself decides: a server with the certificate and a client that trusts the last certificate of the
chain shake hands in memory. So the key belongs to the certificate, each certificate is signed by the next
one, none has expired, and HAProxy, which uses OpenSSL, can use them. One check takes 1 to 3 ms, and `Checks`
remembers the results.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from kproxy.gateway.core.ingress import Checked
from kproxy.intake.descriptors import path_of
from kproxy.limits import CERTIFICATE_BYTES, CERTIFICATE_CHAIN
from kproxy.model import NamespacedName, Secret
from kproxy.problems import HostError

SOON = 14 * 86400
"""Seconds before its end at which a certificate is warned of."""
DAYS = 3650
NOT_YET_VALID = 9
"""X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL."""
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s[^-]+-----END \1-----\s*")
_CHAIN, _KEY = "tls.crt", "tls.key"


class Checks:
    """Checks certificates, each one once as long as it is in use."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], Checked] = {}

    def check(
        self, names: Iterable[NamespacedName], secrets: Mapping[NamespacedName, Secret], now: float
    ) -> dict[NamespacedName, Checked]:
        """Return the results for the Secrets of these names. `now`: seconds since 1970."""
        known, self._known = self._known, {}
        return {name: self._of(name, secrets.get(name), known, now) for name in names}

    def _of(
        self,
        name: NamespacedName,
        secret: Secret | None,
        known: Mapping[tuple[bytes, bytes], Checked],
        now: float,
    ) -> Checked:
        if secret is None:
            return Checked(reason=f"there is no Secret {name}")
        pair = secret.data.get(_CHAIN, b""), secret.data.get(_KEY, b"")
        if missing := [key for key, value in zip((_CHAIN, _KEY), pair, strict=True) if not value.strip()]:
            return Checked(reason=f"Secret {name} has no {missing[0]}")
        before = known.get(pair)
        if before is None or 0 < before.expires <= now or before.reason:
            before = examine(*pair)
        self._known[pair] = before
        if before.reason:
            return before._replace(reason=f"Secret {name}: {before.reason}")
        left = before.expires - now
        soon = f"the certificate of Secret {name} expires in {left / 86400:.1f} days" if left < SOON else ""
        return before._replace(warning=soon)


def examine(chain: bytes, key: bytes) -> Checked:
    """Look at a certificate chain and its key, in PEM."""
    if len(chain) + len(key) > CERTIFICATE_BYTES:
        return Checked(reason=f"has more than {CERTIFICATE_BYTES} bytes")
    certificates = [found[0].strip() for found in _PEM.finditer(chain) if found[1] == b"CERTIFICATE"]
    keys = [found[0].strip() for found in _PEM.finditer(key) if found[1].endswith(b"PRIVATE KEY")]
    if not certificates or not keys:
        return Checked(reason=f"{_KEY if certificates else _CHAIN} is not in PEM")
    if b"ENCRYPTED" in key:
        return Checked(reason="the key is encrypted")
    if len(certificates) > CERTIFICATE_CHAIN:
        return Checked(reason=f"has more than {CERTIFICATE_CHAIN} certificates")
    pem = b"\n".join((*certificates, keys[0], b""))
    try:
        found = _handshake(pem, certificates[-1])
        expires = int(ssl.cert_time_to_seconds(str(found["notAfter"])))
        return Checked(pem, expires=expires, hosts=tuple(_hosts(found)))
    except ssl.SSLCertVerificationError as error:
        reason = f"the certificate cannot be used: {error.verify_message}"
        return Checked(reason=reason, early=error.verify_code == NOT_YET_VALID)
    except ssl.SSLError as error:
        return Checked(reason=_reason(error))
    except (ValueError, KeyError):  # for example a name in it that is not UTF-8
        return Checked(reason="the certificate cannot be read")


def _hosts(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the hosts in a certificate, which only without a list of them is its common name."""
    listed = [value.lower() for kind, value in found.get("subjectAltName", ()) if kind == "DNS"]
    names = (value.lower() for part in found.get("subject", ()) for key, value in part if key == "commonName")
    yield from listed or names


def _handshake(pem: bytes, trusted: bytes) -> dict[str, Any]:
    """Return the certificate that a client gets. Raises ssl.SSLError."""
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(own, pem)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=trusted.decode("ascii"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server)
    other = own.wrap_bio(to_server, to_client, server_side=True)
    for side in (one, other, one, other):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return one.getpeercert() or {}


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Load a certificate and its key. OpenSSL takes the name of a file: it gets one in memory."""
    file = os.memfd_create("certificate")
    try:
        os.write(file, pem)
        context.load_cert_chain(path_of(file), password=_no_password)
    finally:
        os.close(file)


def _no_password() -> str:
    """Return no password for an encrypted key. Without this, OpenSSL would ask on the terminal."""
    return ""


def _reason(error: ssl.SSLError) -> str:
    """Return what is wrong, in the words of OpenSSL."""
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key belongs to another certificate"
    reason = (error.reason or "OpenSSL cannot read it").replace("_", " ").lower()
    return f"the certificate cannot be used: {reason}"


def self_signed(hosts: Iterable[str]) -> tuple[bytes, bytes]:
    """Return a new certificate for hosts and its key, made by the command openssl. Raises HostError."""
    names = list(hosts)
    alternatives = ",".join(f"DNS:{name}" for name in names)
    key = _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    words = ("-new", "-x509", "-sha256", "-key", "/dev/stdin", "-days", str(DAYS))
    subject = ("-subj", f"/CN={names[0][:64]}", "-addext", f"subjectAltName={alternatives}")
    return _openssl("req", *words, *subject, stdin=key), key


def _openssl(*words: str, stdin: bytes = b"") -> bytes:
    try:
        result = subprocess.run(["openssl", *words], input=stdin, capture_output=True, timeout=60, check=True)
    except FileNotFoundError:
        raise HostError("The command openssl is missing.", "Install the package openssl.") from None
    except subprocess.CalledProcessError as error:
        text = error.stderr.decode(errors="replace").strip()
        raise HostError(f"openssl {words[0]} failed: {text}") from None
    return result.stdout
