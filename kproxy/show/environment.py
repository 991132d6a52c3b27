"""The environment variables of a pod, in formats for a shell, for Docker and for programs. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping

from kproxy.controlplane.environment import environment
from kproxy.model import NamespacedName, Pod
from kproxy.problems import KproxyError
from kproxy.show.snapshot import Snapshot


def variables_of(snapshot: Snapshot, name: NamespacedName) -> Mapping[str, str]:
    """Return the variables of a pod. Raises KproxyError if it does not exist."""
    if "Pod" not in snapshot.inventory.followed:
        hint = f"Ask kubectl: kubectl exec -n {name.namespace} {name.name} -- env"
        raise KproxyError(f"Pod {name} not found: kproxy does not follow Pods.", hint)
    return environment(snapshot.inventory.services.values(), _find(snapshot.inventory.pods, name))


def _find(pods: Iterable[Pod], name: NamespacedName) -> Pod:
    elsewhere = []
    for pod in pods:
        if pod.name == name:
            return pod
        if pod.name.name == name.name:
            elsewhere.append(str(pod.name))
    hint = f"Did you mean {' or '.join(sorted(elsewhere))}?" if elsewhere else ""
    raise KproxyError(f"Pod {name} not found.", hint)


def as_export(variables: Mapping[str, str]) -> str:
    """Return lines for a shell, without invalid names (`1WEB_PORT`), which would end the shell."""
    return "".join(
        f"export {name}={_quoted(value)}\n" for name, value in variables.items() if name.isidentifier()
    )


def _quoted(value: str) -> str:
    """Return the value in quotes, even if it does not need them."""
    quoted = shlex.quote(value)
    return f"'{value}'" if quoted == value else quoted


def as_docker(variables: Mapping[str, str]) -> str:
    """Return lines for `docker run --env-file`."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def as_json(variables: Mapping[str, str]) -> str:
    """Return one JSON object."""
    return json.dumps(variables, indent=2) + "\n"


FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "export": as_export,
    "docker": as_docker,
    "json": as_json,
}
"""The functions for the values of --format."""
