"""Reads the address of the API server and the credentials, from a kubeconfig or from a pod's service account.

The kubernetes client library reads both, runs credential plugins, and renews what expires. kproxy uses
nothing else of the library, because its objects need more CPU time than everything else
(docs/dependencies.md).
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kubernetes.client import Configuration
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import InClusterConfigLoader

from kproxy.problems import KproxyError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class CredentialsError(KproxyError):
    """The kubeconfig or the service account cannot be used."""


class Endpoint(NamedTuple):
    """The address of the API server, and the parameters of connections to it."""

    server: str
    """A URL without a slash at its end."""
    tls: ssl.SSLContext | bool
    server_name: str | None
    """The name in the server's certificate, if it differs from the URL."""
    proxy: str | None
    """The URL of an HTTP proxy."""


class Credentials:
    """The credentials of a kubeconfig, or without one, of the pod in which kproxy runs.

    `load` and `authorization` read files and may run a credential plugin. Do not call them in an event loop.
    """

    def __init__(self, kubeconfig: Path | None, service_account: Path = SERVICE_ACCOUNT) -> None:
        self._kubeconfig = kubeconfig
        self._service_account = service_account
        self._configuration = Configuration()

    def load(self) -> Endpoint:
        """Read everything again. Raises CredentialsError."""
        configuration = Configuration()
        try:
            self._read(configuration)
            tls = _context(configuration) if configuration.host.startswith("https:") else False
        except Exception as error:  # the library raises any type, depending on what the file contains
            raise CredentialsError(f"{self._name}: {' '.join(str(error).split())}") from None
        proxy = configuration.proxy
        if proxy and should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
            proxy = None
        if proxy and not proxy.startswith("http://"):
            raise CredentialsError(f"{self._name}: proxy {proxy} is not supported; expected an http:// URL")
        self._configuration = configuration
        return Endpoint(configuration.host.rstrip("/"), tls, configuration.tls_server_name, proxy)

    def _read(self, configuration: Configuration) -> None:
        if self._kubeconfig is None:
            token, authority = self._service_account / "token", self._service_account / "ca.crt"
            InClusterConfigLoader(str(token), str(authority)).load_and_set(configuration)
            return
        try:
            self._kubeconfig.read_bytes()  # the library's error does not contain the reason
        except OSError as error:
            raise ConfigException(error.strerror) from None
        with _logged_errors() as errors:
            load_kube_config(str(self._kubeconfig), client_configuration=configuration, persist_config=False)
        if errors and not configuration.api_key:
            raise ConfigException("; ".join(errors))

    def authorization(self) -> str | None:
        """Return the value of the Authorization header; None for no header. Raises CredentialsError.

        Renews a token that is about to expire.
        """
        try:
            key = self._configuration.get_api_key_with_prefix("BearerToken")
        except Exception as error:  # of any type, as in `load`
            raise CredentialsError(f"{self._name}: {error}") from None
        return key.strip() if key else None

    @property
    def _name(self) -> str:
        return "this pod's service account" if self._kubeconfig is None else str(self._kubeconfig)


def _context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Python 3.13 and later require extensions that the certificates of many clusters do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file, password=_no_password)
    return context


def _no_password() -> str:
    """Fail, because OpenSSL would otherwise prompt for a password on the terminal."""
    raise ValueError("the client key is encrypted")


@contextmanager
def _logged_errors() -> Iterator[list[str]]:
    """Collect the errors that this thread logs. If a plugin fails, the library only logs it and continues."""
    errors: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == threading.get_ident():
                errors.append(record.getMessage())

    collector = Collector(logging.ERROR)
    logging.getLogger().addHandler(collector)
    try:
        yield errors
    finally:
        logging.getLogger().removeHandler(collector)
