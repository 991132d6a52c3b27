"""Where the API server is, and who we are to it: a kubeconfig, or what a pod is given.

The kubernetes client library reads both, runs credential plugins and renews what expires. Nothing
else of it is used: its objects cost more than all the rest (docs/dependencies.md).
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config import ConfigException, load_kube_config
from kubernetes.config.incluster_config import InClusterConfigLoader

from kproxy.problems import KproxyError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class CredentialsError(KproxyError):
    """The kubeconfig or the service account cannot be used."""


class Endpoint(NamedTuple):
    """How to reach the API server."""

    server: str
    """A URL without slash at its end."""
    tls: ssl.SSLContext | bool
    server_name: str | None
    """The name in its certificate, if that is not the one in the URL."""
    proxy: str | None
    """The URL of an HTTP proxy."""


class Credentials:
    """Of a kubeconfig, or without one of the pod that this runs in.

    `load` and `authorization` read files and may run a credential plugin: not in an event loop.
    """

    def __init__(self, kubeconfig: Path | None, service_account: Path = SERVICE_ACCOUNT) -> None:
        self._kubeconfig = kubeconfig
        self._service_account = service_account
        self._configuration = Configuration()

    def load(self) -> Endpoint:
        """Read everything anew. Raises CredentialsError."""
        configuration = Configuration()
        try:
            self._read(configuration)
            tls = _context(configuration) if configuration.host.startswith("https:") else False
        except (ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            raise CredentialsError(f"{self._name}: {' '.join(str(error).split())}") from None
        proxy = configuration.proxy
        if proxy and should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
            proxy = None
        if proxy and not proxy.startswith("http://"):
            raise CredentialsError(f"{self._name}: the proxy {proxy} is not one of HTTP")
        self._configuration = configuration
        return Endpoint(configuration.host.rstrip("/"), tls, configuration.tls_server_name, proxy)

    def _read(self, configuration: Configuration) -> None:
        if self._kubeconfig is None:
            token, authority = self._service_account / "token", self._service_account / "ca.crt"
            InClusterConfigLoader(str(token), str(authority)).load_and_set(configuration)
            return
        try:
            self._kubeconfig.read_bytes()  # the library does not say why it finds nothing
        except OSError as error:
            raise ConfigException(error.strerror) from None
        with _complaints() as complaints:
            load_kube_config(str(self._kubeconfig), client_configuration=configuration, persist_config=False)
        if complaints and not configuration.api_key:
            raise ConfigException("; ".join(complaints))

    def authorization(self) -> str | None:
        """The header's value, renewed if it is about to expire; None for none. Raises CredentialsError."""
        try:
            key = self._configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            raise CredentialsError(f"{self._name}: {error}") from None
        return key.strip() if key else None

    @property
    def _name(self) -> str:
        return "this pod's service account" if self._kubeconfig is None else str(self._kubeconfig)


def _context(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Since 3.13 Python insists on extensions that certificates of many clusters do not have.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file, password=_no_password)
    return context


def _no_password() -> str:
    """Instead of a question on the terminal."""
    raise ValueError("the client key is encrypted")


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What this thread logs as an error: the library goes on without credentials when a plugin fails."""
    complaints: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == threading.get_ident():
                complaints.append(record.getMessage())

    listener = Listener(logging.ERROR)
    logging.getLogger().addHandler(listener)
    try:
        yield complaints
    finally:
        logging.getLogger().removeHandler(listener)
