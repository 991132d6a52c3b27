"""The environment variables of a pod in the forms that a shell, Docker and programs read. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping

from kproxy.controlplane.environment import environment
from kproxy.model import NamespacedName, Pod
from kproxy.problems import KproxyError
from kproxy.show.snapshot import Snapshot


def variables_of(snapshot: Snapshot, name: NamespacedName) -> Mapping[str, str]:
    """Return the variables of a pod; KproxyError if there is none of this name."""
    if "Pod" not in snapshot.inventory.followed:
        hint = f"Ask kubectl: kubectl exec -n {name.namespace} {name.name} -- env"
        raise KproxyError(f"Pod {name} is not known: kproxy does not follow Pods.", hint)
    return environment(snapshot.inventory.services.values(), _find(snapshot.inventory.pods, name))


def _find(pods: Iterable[Pod], wanted: NamespacedName) -> Pod:
    elsewhere = []
    for pod in pods:
        if pod.name == wanted:
            return pod
        if pod.name.name == wanted.name:
            elsewhere.append(str(pod.name))
    hint = f"There is {', '.join(sorted(elsewhere))}." if elsewhere else ""
    raise KproxyError(f"there is no Pod {wanted}.", hint)


def as_export(variables: Mapping[str, str]) -> str:
    """Return lines for a shell, without names that a shell cannot have (`1WEB_PORT`), which would end it."""
    return "".join(
        f"export {name}={_quoted(value)}\n" for name, value in variables.items() if name.isidentifier()
    )


def _quoted(value: str) -> str:
    """Return the value in quotes, whether it needs them or not."""
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
"""By the values of --format."""
