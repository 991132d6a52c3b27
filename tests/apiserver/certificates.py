"""A temporary certificate authority, made with the openssl command."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple


class KeyPair(NamedTuple):
    """PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A CA whose files are in `folder`."""

    def __init__(self, folder: Path, name: str = "test-ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.pair = KeyPair(folder / f"{name}.crt", folder / f"{name}.key")
        extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        _issue(self.pair, f"/CN={name}", extensions)

    @property
    def certificate(self) -> Path:
        """The certificate for those who trust this authority."""
        return self.pair.certificate

    def server(self, *names: str, file: str = "server") -> KeyPair:
        """Issue a certificate for a server with these DNS names and addresses."""
        pair = KeyPair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
        _issue(
            pair,
            "/CN=kube-apiserver",
            [f"subjectAltName={alternatives}", "extendedKeyUsage=serverAuth", "basicConstraints=CA:FALSE"],
            self.pair,
        )
        return pair

    def client(self, name: str = "system:kube-proxy", groups: Sequence[str] = ("system:nodes",)) -> KeyPair:
        """Issue a certificate for a user (CN) in groups (O)."""
        file = name.replace(":", "-").replace("/", "-")
        pair = KeyPair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        subject = "".join(f"/O={group}" for group in groups) + f"/CN={name}"
        _issue(pair, subject, ["extendedKeyUsage=clientAuth", "basicConstraints=CA:FALSE"], self.pair)
        return pair


def _issue(pair: KeyPair, subject: str, extensions: Sequence[str], by: KeyPair | None = None) -> None:
    config = pair.key.with_suffix(".cnf")
    config.write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\n" + "\n".join(extensions)
    )
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-config", str(config), "-subj", subject, "-days", "2", "-sha256"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(pair.key), "-out", str(pair.certificate)),
            *(("-CA", str(by.certificate), "-CAkey", str(by.key)) if by else ()),
        ],
        check=True,
        capture_output=True,
    )


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
