"""Certificates of Secrets: which can be used, and why others cannot."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from kproxy.gateway.certificates import Checks, examine, self_signed
from kproxy.gateway.core.ingress import wrong_hosts
from kproxy.gateway.core.routes import Certificate, Listener
from kproxy.model import NamespacedName, Origin, Secret

NOW = time.time()
NAME = NamespacedName("default", "tls")
EXPIRED = Path(__file__).with_name("certificate.pem")
"""A key and its certificate of the year 2020."""


def openssl(folder: Path, *words: str) -> bytes:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)
    return (folder / words[words.index("-out") + 1]).read_bytes()


def secret(**data: bytes) -> dict[NamespacedName, Secret]:
    named = {key.replace("_", "."): value for key, value in data.items()}
    return {NAME: Secret(NAME, Origin("f", ""), "kubernetes.io/tls", named)}


def reason(**data: bytes) -> str:
    return Checks().check([NAME], secret(**data), NOW)[NAME].reason


@pytest.fixture(scope="module")
def pair() -> tuple[bytes, bytes]:
    return self_signed(["a.test", "*.b.test"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key, an authority, and a certificate that it signed."""
    here = tmp_path_factory.mktemp("tls")
    for name in ("ca", "own"):
        openssl(
            here, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key"
        )
    openssl(here, "req", "-new", "-x509", "-key", "ca.key", "-subj", "/CN=ca", "-days", "2", "-out", "ca.crt")
    (here / "own.ext").write_text("basicConstraints=CA:FALSE\n")
    openssl(here, "req", "-new", "-key", "own.key", "-subj", "/CN=own", "-out", "own.csr")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "own.ext", "-days", "2")
    openssl(here, "x509", "-req", "-in", "own.csr", *signed, "-out", "own.crt")
    return here


def test_a_self_signed_certificate(pair: tuple[bytes, bytes]) -> None:
    found = examine(*pair)
    assert found.reason == ""
    assert found.pem.count(b"-----BEGIN") == 2
    assert 3649 * 86400 < found.expires - NOW < 3651 * 86400


def test_a_chain_and_text_around_it(folder: Path) -> None:
    own, ca, key = ((folder / name).read_bytes() for name in ("own.crt", "ca.crt", "own.key"))
    found = examine(b"subject=own\r\n" + own + b"\n\n" + ca, b"Bag Attributes\n" + key)
    assert found.reason == ""
    assert found.pem.count(b"BEGIN CERTIFICATE") == 2
    assert b"Attributes" not in found.pem


def test_a_certificate_without_its_authority_is_used(folder: Path) -> None:
    """Clients may know the authority."""
    assert examine((folder / "own.crt").read_bytes(), (folder / "own.key").read_bytes()).reason == ""


AUTHORITY = """
[ca]
default_ca = d
[d]
database = index
serial = serial
new_certs_dir = .
policy = p
default_md = sha256
[p]
commonName = optional
"""


def test_a_certificate_that_is_not_valid_yet(folder: Path) -> None:
    (folder / "conf").write_text(AUTHORITY)
    (folder / "index").touch()
    (folder / "serial").write_text("01")
    times = ("-startdate", "20990101000000Z", "-enddate", "21000101000000Z")
    words = ("-config", "conf", "-batch", "-notext", "-cert", "ca.crt", "-keyfile", "ca.key")
    chain = openssl(folder, "ca", *words, *times, "-in", "own.csr", "-out", "later.crt")
    later = examine(chain, (folder / "own.key").read_bytes())
    assert (later.reason, later.early) == (
        "the certificate cannot be used: certificate is not yet valid",
        True,
    )
    expired = examine(EXPIRED.read_bytes(), EXPIRED.read_bytes())
    assert ("expired" in expired.reason, expired.early) == (True, False)


def test_a_key_of_another_certificate(pair: tuple[bytes, bytes], folder: Path) -> None:
    words = "Secret default/tls: the key belongs to another certificate"
    assert reason(tls_crt=pair[0], tls_key=(folder / "own.key").read_bytes()) == words


def test_a_chain_in_which_one_did_not_sign_the_other(pair: tuple[bytes, bytes], folder: Path) -> None:
    chain, key = (folder / "own.crt").read_bytes() + pair[0], (folder / "own.key").read_bytes()
    assert reason(tls_crt=chain, tls_key=key).startswith(
        "Secret default/tls: the certificate cannot be used: unable to get local issuer certificate"
    )


def test_an_expired_certificate() -> None:
    key, begin, certificate = EXPIRED.read_bytes().partition(b"-----BEGIN CERTIFICATE-----")
    assert reason(tls_crt=begin + certificate, tls_key=key) == (
        "Secret default/tls: the certificate cannot be used: certificate has expired"
    )


def test_an_encrypted_key(folder: Path, pair: tuple[bytes, bytes]) -> None:
    words = ("pkey", "-in", "own.key", "-aes256", "-passout", "pass:x", "-out", "encrypted.key")
    assert (
        reason(tls_crt=pair[0], tls_key=openssl(folder, *words)) == "Secret default/tls: the key is encrypted"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "Secret default/tls has no tls.crt"),
        ({"tls_crt": b"x", "tls_key": b" "}, "Secret default/tls has no tls.key"),
        ({"tls_crt": b"x", "tls_key": b"y"}, "Secret default/tls: tls.crt is not in PEM"),
        ({"tls_crt": b"x" * 300_000, "tls_key": b"y"}, "Secret default/tls: has more than 262144 bytes"),
    ],
)
def test_a_secret_without_a_certificate(data: dict[str, bytes], words: str) -> None:
    assert reason(**data) == words


def test_bytes_that_only_look_like_a_certificate(pair: tuple[bytes, bytes]) -> None:
    broken = pair[0].replace(pair[0].splitlines()[3], b"A" * 64)
    assert "the certificate cannot be used" in reason(tls_crt=broken, tls_key=pair[1])


def test_a_certificate_with_a_name_that_is_not_utf_8(folder: Path) -> None:
    name = os.fsdecode(b"subjectAltName=DNS:a\xff.test")
    request = ("-new", "-x509", "-key", "own.key", "-subj", "/CN=own", "-addext", name)
    chain = openssl(folder, "req", *request, "-out", "odd.crt")
    words = "Secret default/tls: the certificate cannot be read"
    assert reason(tls_crt=chain, tls_key=(folder / "own.key").read_bytes()) == words


def test_a_missing_secret() -> None:
    assert Checks().check([NAME], {}, NOW)[NAME].reason == "there is no Secret default/tls"


def test_a_certificate_that_expires_soon(pair: tuple[bytes, bytes]) -> None:
    checks, secrets = Checks(), secret(tls_crt=pair[0], tls_key=pair[1])
    assert checks.check([NAME], secrets, NOW)[NAME].warning == ""
    soon = checks.check([NAME], secrets, NOW + 3645 * 86400)[NAME]
    assert soon.warning == "the certificate of Secret default/tls expires in 5.0 days"


def test_a_certificate_is_examined_once(pair: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    checks, secrets = Checks(), secret(tls_crt=pair[0], tls_key=pair[1])
    first = checks.check([NAME], secrets, NOW)
    monkeypatch.setattr("kproxy.gateway.certificates.examine", None)
    assert checks.check([NAME], secrets, NOW) == first


def test_the_hosts_of_a_certificate(pair: tuple[bytes, bytes], folder: Path) -> None:
    assert set(examine(*pair).hosts) == {"a.test", "*.b.test"}
    found = examine(
        (folder / "own.crt").read_bytes() + (folder / "ca.crt").read_bytes(),
        (folder / "own.key").read_bytes(),
    )
    assert found.hosts == ("own",)  # the common name, without a list of hosts


@pytest.mark.parametrize(
    ("used", "wrong"),
    [
        (("a.test", "x.b.test", "*.b.test"), ""),
        (("b.test", "x.y.b.test", "a.test", "*.test"), "*.test, b.test, x.y.b.test"),
        ((), ""),
    ],
)
def test_a_certificate_that_is_used_for_other_hosts_is_named(
    pair: tuple[bytes, bytes], used: tuple[str, ...], wrong: str
) -> None:
    listeners = [Listener("https", 443, tls=True, certificates=(Certificate("default/tls", b"", used),))]
    found = wrong_hosts(listeners, {NAME: examine(*pair)}, secret())
    expected = (
        f"f: Secret default/tls: data[tls.crt]: the certificate is not for {wrong}: clients refuse it there"
    )
    assert [str(each) for each in found] == [expected] * bool(wrong)
