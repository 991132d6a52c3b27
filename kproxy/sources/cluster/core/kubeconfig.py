"""The parts of a kubeconfig that kproxy reads, and which of them its current context names.

The rules are those of client-go: inline data have priority over files, and relative paths start at the folder
of the kubeconfig.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from msgspec import DecodeError, Raw, Struct, field

from kproxy.decode.explain import describe
from kproxy.decode.text import from_json, to_python

Named = TypeVar("Named", bound="NamedCluster | NamedUser | NamedContext")


class KubeconfigError(ValueError):
    """A kubeconfig cannot be used. The message names the field."""


class Section(Struct, rename="kebab"):
    """A mapping whose fields are written with hyphens."""


class Extension(Struct):
    name: str
    extension: Any = None


class Cluster(Section):
    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None
    extensions: list[Extension] | None = None


class Variable(Struct):
    name: str
    value: str


class Exec(Struct, rename="camel"):
    """A program that prints credentials (client.authentication.k8s.io)."""

    api_version: str
    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    provide_cluster_info: bool | None = None
    interactive_mode: str | None = None


class AuthProvider(Struct):
    name: str = ""


class User(Section):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    exec: Exec | None = None
    auth_provider: AuthProvider | None = None
    as_: str | None = field(default=None, name="as")


class NamedCluster(Struct):
    name: str
    cluster: Cluster


class NamedUser(Struct):
    name: str
    user: User


class Context(Struct):
    cluster: str
    user: str = ""


class NamedContext(Struct):
    name: str
    context: Context


class Kubeconfig(Section):
    current_context: str | None = None
    clusters: list[NamedCluster] | None = None
    users: list[NamedUser] | None = None
    contexts: list[NamedContext] | None = None


def current(content: Raw) -> tuple[Cluster, User]:
    """Return the cluster and the user of the current context. Raises KubeconfigError."""
    try:
        config = from_json(content, Kubeconfig)
    except DecodeError as error:
        raise KubeconfigError(": ".join(filter(None, describe(error, to_python(content))))) from None
    if not config.current_context:
        raise KubeconfigError("current-context: is missing: name one of the contexts")
    own = f"context {config.current_context}"
    context = _named("contexts", config.contexts, config.current_context, "current-context").context
    cluster = _named("clusters", config.clusters, context.cluster, own).cluster
    user = _named("users", config.users, context.user, own).user if context.user else User()
    if not cluster.server:
        raise KubeconfigError(f"clusters: {context.cluster}: server: is missing")
    _check_supported(user, f"users: {context.user}")
    return cluster, user


def _named(where: str, members: Iterable[Named] | None, name: str, referrer: str) -> Named:
    """Return the member of this name, to which `referrer` refers."""
    found = [member for member in members or () if member.name == name]
    if not found:
        raise KubeconfigError(f"{where}: {name} is missing, although {referrer} refers to it")
    if len(found) > 1:
        raise KubeconfigError(f"{where}: {name} is there twice")
    return found[0]


def _check_supported(user: User, where: str) -> None:
    if user.auth_provider is not None:
        provider = user.auth_provider.name
        raise KubeconfigError(f"{where}: auth-provider: {provider} is not supported: use an exec plugin")
    if user.as_:
        raise KubeconfigError(f"{where}: as: acting as another user is not supported")
