"""`kproxy run`: keep the kernel's tables up to date while Services change, until a signal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kproxy.daemon.start import run_daemon
from kproxy.kernel.host import require_root
from kproxy.problems import UsageError
from kproxy.settings.derived import check_daemon
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    require_root()
    check_daemon(settings, in_pod="KUBERNETES_SERVICE_HOST" in os.environ)
    if not settings.init_only:
        _check_input(settings)
    return run_daemon(settings)


def _check_input(settings: Settings) -> None:
    """Raise UsageError if there is nothing to follow. A kproxy that runs waits until there is again."""
    if settings.manifests:
        _check_paths(settings.manifests)
    else:
        _check_credentials(settings.kubeconfig)


def _check_credentials(kubeconfig: str) -> None:
    """Raise UsageError for an invalid kubeconfig or service account."""
    from kproxy.sources.cluster.credentials import Credentials, CredentialsError  # not for manifests

    try:
        Credentials(Path(kubeconfig) if kubeconfig else None).check()
    except CredentialsError as error:
        raise UsageError(f"{error}.") from None


def _check_paths(paths: Iterable[str]) -> None:
    """Raise UsageError for a path that does not exist. It is probably misspelt; later it may disappear."""
    for path in paths:
        try:
            Path(path).stat()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}.") from None
