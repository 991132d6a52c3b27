"""`kproxy env`: print the variables that a pod has for services. Needs no root and no kernel."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence

from kproxy.cli.output import print_problems, write
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.controlplane.environment import environment
from kproxy.model import NamespacedName, Pod
from kproxy.problems import KproxyError, UsageError
from kproxy.settings.settings import Origin, Settings
from kproxy.show.complaints import complaints


def as_export(variables: Mapping[str, str]) -> str:
    """What a shell reads. Without the names that it cannot have (`1WEB_PORT`), which would end it."""
    return "".join(
        f"export {name}={_quoted(value)}\n" for name, value in variables.items() if name.isidentifier()
    )


def _quoted(value: str) -> str:
    """In quotes, whether it needs them or not."""
    quoted = shlex.quote(value)
    return f"'{value}'" if quoted == value else quoted


def as_docker(variables: Mapping[str, str]) -> str:
    """What `docker run --env-file` reads."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def as_json(variables: Mapping[str, str]) -> str:
    """One object."""
    return json.dumps(variables, indent=2) + "\n"


FORMATS: dict[str, Callable[[Mapping[str, str]], str]] = {
    "export": as_export,
    "docker": as_docker,
    "json": as_json,
}


def pod_name(text: str, chosen: Settings) -> NamespacedName:
    """The pod that is asked for."""
    own, slash, name = text.rpartition("/")
    if slash and own != chosen.namespace and chosen.origin("namespace") is Origin.FLAG:
        raise UsageError(f"{text} is not in the namespace that -n says, {chosen.namespace}.")
    return NamespacedName(own or chosen.namespace, name)


def find_pod(pods: Iterable[Pod], wanted: NamespacedName) -> Pod:
    """The pod of that name; an error that names it if there is none."""
    elsewhere = []
    for pod in pods:
        if pod.name == wanted:
            return pod
        if pod.name.name == wanted.name:
            elsewhere.append(str(pod.name))
    hint = f"There is {', '.join(sorted(elsewhere))}." if elsewhere else ""
    raise KproxyError(f"there is no Pod {wanted}.", hint)


def run(chosen: Settings, operands: Sequence[str]) -> int:
    """Returns the exit status."""
    wanted = pod_name(operands[0], chosen)
    with progress() as tell:
        given = look_up(chosen, tell)
    print_problems(complaints(given))
    if "Pod" not in given.inventory.followed:
        ask = f"Ask kubectl: kubectl exec -n {wanted.namespace} {wanted.name} -- env"
        raise KproxyError(f"Pod {wanted} is not known: kproxy does not follow Pods.", ask)
    variables = environment(given.inventory.services.values(), find_pod(given.inventory.pods, wanted))
    write(FORMATS[chosen.format](variables))
    return 1 if given.problems else 0
