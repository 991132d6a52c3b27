"""Reads the address of the API server and the credentials, from a kubeconfig or from a pod's service account.

A token is read or renewed before each request. Everything else is read by `load`, at the start and after the
server rejected the credentials.
"""

from __future__ import annotations

import os
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec import Raw

from kproxy.intake.descriptors import path_of
from kproxy.intake.dial import Endpoint
from kproxy.problems import KproxyError, Problem
from kproxy.sources.cluster import plugin
from kproxy.sources.cluster.core.kubeconfig import Cluster, Exec, KubeconfigError, User, current
from kproxy.sources.cluster.proxies import proxy_of_environment
from kproxy.sources.documents import parse
from kproxy.sources.files import content_of

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
AUTHORITY, CERTIFICATE, KEY = "certificate-authority", "client-certificate", "client-key"
"""Fields of a kubeconfig. With `-data` behind them, their values are inline."""


class CredentialsError(KproxyError):
    """The kubeconfig or the service account cannot be used."""


class _Pair(NamedTuple):
    """A client certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Credentials:
    """The credentials of a kubeconfig, or without one, of the pod in which kproxy runs.

    `load` and `authorization` read files and may run a credential plugin. Do not call them in an event loop.
    """

    def __init__(self, kubeconfig: Path | None, service_account: Path = SERVICE_ACCOUNT) -> None:
        self._kubeconfig = kubeconfig
        self._service_account = service_account
        self._authorize: Callable[[], str | None] = partial(_constant, None)

    def load(self) -> Endpoint:
        """Read everything again. Raises CredentialsError."""
        with self._named_errors():
            if self._kubeconfig is None:
                return self._of_pod()
            return self._of_kubeconfig(self._kubeconfig)

    def check(self) -> None:
        """Read everything, to find errors that do not pass by waiting. Raises CredentialsError.

        A credential plugin does not run: it may need a network that is not there yet.
        """
        with self._named_errors():
            if self._kubeconfig is None:
                self._of_pod()
            else:
                self._of_kubeconfig(self._kubeconfig, run_plugin=False)
        self.authorization()

    @classmethod
    def of(cls, place: Path) -> Credentials:
        """Return the credentials at a place, as `place` returns it."""
        return cls(None, place) if place.is_dir() else cls(place)

    @property
    def place(self) -> Path:
        """The kubeconfig, or the folder of the service account."""
        return self._kubeconfig.absolute() if self._kubeconfig else self._service_account

    def certificates(self) -> list[tuple[str, bytes]]:
        """Return the certificates in the files, as PEM, with what they are. Raises CredentialsError."""
        with self._named_errors():
            if self._kubeconfig is None:
                file = self._service_account / "ca.crt"
                return [(str(file), content_of(file, pipes=False))]
            cluster, user = current(_content(self._kubeconfig))
            folder = self._kubeconfig.absolute().parent
            found = ((AUTHORITY, _authority(folder, cluster)), (CERTIFICATE, _certificate(folder, user)))
            return [(f"{name} of {self._kubeconfig}", pem) for name, pem in found if pem]

    def authorization(self) -> str | None:
        """Return the value of the Authorization header; None for no header. Raises CredentialsError.

        Renews a token that is about to expire.
        """
        with self._named_errors():
            header = self._authorize()
            if header and not (header.isascii() and header.isprintable()):
                raise KubeconfigError("a token or a password has characters that a header cannot have")
            return header

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = f"{error.filename}: " if error.filename not in (None, str(self._kubeconfig)) else ""
            raise CredentialsError(f"{self._name}: {place}{error.strerror or error}") from None
        except Exception as error:  # of any type, depending on the content of the files
            raise CredentialsError(f"{self._name}: {' '.join(str(error).split())}") from None

    @property
    def _name(self) -> str:
        return "this pod's service account" if self._kubeconfig is None else str(self._kubeconfig)

    def _of_pod(self) -> Endpoint:
        host, port = os.environ.get(HOST), os.environ.get(PORT)
        if not host or not port:
            raise KubeconfigError(f"{HOST} and {PORT} are not set: kproxy does not run in a pod")
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        token = self._service_account / "token"
        self._authorize = partial(_bearer_of, token)
        self._authorize()
        tls = _context(content_of(self._service_account / "ca.crt", pipes=False), None, True)
        return Endpoint(server, tls, None, _proxy(None, server))

    def _of_kubeconfig(self, path: Path, run_plugin: bool = True) -> Endpoint:
        cluster, user = current(_content(path))
        folder = path.absolute().parent
        authority, pair = _authority(folder, cluster), _pair(folder, user)
        self._authorize = _authorizer(folder, user)
        if user.exec is not None and run_plugin:
            renewed = _Plugin(user.exec, cluster, authority, folder)
            pair = renewed.pair() or pair
            self._authorize = renewed.authorization
        server = _checked(cluster.server.rstrip("/"))
        tls = _context(authority, pair, not cluster.insecure_skip_tls_verify) if _is_tls(server) else None
        return Endpoint(server, tls, cluster.tls_server_name or None, _proxy(cluster.proxy_url, server))


class _Plugin:
    """A credential plugin with what it returned last."""

    def __init__(self, exec_: Exec, cluster: Cluster, authority: bytes | None, folder: Path) -> None:
        self._run = partial(plugin.run, exec_, cluster, authority, folder)
        self._credential = self._run()

    def pair(self) -> _Pair | None:
        found = self._credential
        if not found.client_certificate_data or not found.client_key_data:
            return None
        return _Pair(found.client_certificate_data.encode(), found.client_key_data.encode())

    def authorization(self) -> str | None:
        if self._credential.expires_soon():
            self._credential = self._run()
        token = self._credential.token
        return f"Bearer {token.strip()}" if token else None


def _content(path: Path) -> Raw:
    """Return the JSON of a kubeconfig."""
    found = list(parse(str(path), content_of(path, pipes=False)))
    if len(found) != 1 or isinstance(found[0], Problem):
        problem = next((each.message for each in found if isinstance(each, Problem)), None)
        raise KubeconfigError(problem or f"contains {len(found) or 'no'} documents, expected one")
    content = found[0].content
    assert isinstance(content, Raw)
    return content


def _authorizer(folder: Path, user: User) -> Callable[[], str | None]:
    """Return what finds the Authorization header of a user without a plugin."""
    if user.token_file:
        return partial(_bearer_of, folder / user.token_file, "tokenFile")
    header = f"Bearer {user.token.strip()}" if user.token else None
    if header is None and user.username is not None and user.password is not None:
        header = f"Basic {b64encode(f'{user.username}:{user.password}'.encode()).decode()}"
    return partial(_constant, header)


def _constant(header: str | None) -> str | None:
    return header


def _bearer_of(file: Path, field: str = "") -> str:
    with _in_field(field):
        token = content_of(file, pipes=False).decode().strip()
        if not token:
            raise KubeconfigError(f"{file} is empty")
    return f"Bearer {token}"


def _pair(folder: Path, user: User) -> _Pair | None:
    certificate, key = _certificate(folder, user), _data(folder, KEY, user.client_key_data, user.client_key)
    if (certificate is None) is not (key is None):
        raise KubeconfigError(f"{KEY if key is None else CERTIFICATE}: is missing")
    return None if certificate is None or key is None else _Pair(certificate, key)


def _certificate(folder: Path, user: User) -> bytes | None:
    return _data(folder, CERTIFICATE, user.client_certificate_data, user.client_certificate)


def _authority(folder: Path, cluster: Cluster) -> bytes | None:
    return _data(folder, AUTHORITY, cluster.certificate_authority_data, cluster.certificate_authority)


def _data(folder: Path, field: str, data: str | None, file: str | None) -> bytes | None:
    """Return inline data, or the content of a file; None if neither is there."""
    with _in_field(f"{field}-data" if data else field):
        if data:
            return b64decode(data)
        return content_of(folder / file, pipes=False) if file else None


@contextmanager
def _in_field(field: str) -> Iterator[None]:
    """Name the field in errors about its value, and the file that it names."""
    try:
        yield
    except (OSError, ValueError) as error:
        file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
        why = (isinstance(error, OSError) and error.strerror) or error
        raise KubeconfigError(": ".join(filter(None, (field, f"{file}{why}")))) from None


def _checked(server: str) -> str:
    """Return the address of a server, if it is one."""
    try:
        url = urlsplit(server)
        valid = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # of the port, or of an IPv6 address
        valid = False
    if not valid:
        raise KubeconfigError(f"server: {server!r} is not a URL such as https://192.0.2.1:6443")
    return server


def _is_tls(server: str) -> bool:
    return server.startswith("https:")


def _proxy(own: str | None, server: str) -> str | None:
    proxy = own or proxy_of_environment(server)
    if proxy and not proxy.startswith("http://"):
        raise KubeconfigError(f"proxy {proxy} is not supported; expected an http:// URL")
    return proxy


def _context(authority: bytes | None, pair: _Pair | None, verify: bool) -> ssl.SSLContext:
    with _in_field(AUTHORITY):
        context = ssl.create_default_context(cadata=authority.decode() if authority else None)
    # Python 3.13 and later require extensions that the certificates of many clusters do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if pair is not None:
        with (
            _in_field(f"{CERTIFICATE}, {KEY}"),
            _memory_file(pair.certificate) as certificate,
            _memory_file(pair.key) as key,
        ):
            context.load_cert_chain(certificate, key, password=_no_password)
    return context


@contextmanager
def _memory_file(content: bytes) -> Iterator[str]:
    """Yield the path of a file in memory. OpenSSL reads keys from files only."""
    descriptor = os.memfd_create("kproxy")
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield path_of(descriptor)


def _no_password() -> str:
    """Fail, because OpenSSL would otherwise prompt for a password on the terminal."""
    raise ValueError("the client key is encrypted")
