"""`kproxy env`: print the variables that a pod has for services. Needs no root and no kernel."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Callable, Iterable, Mapping

from kproxy.cli import options
from kproxy.control.lookup import look_up
from kproxy.controlplane.environment import environment
from kproxy.model import NamespacedName, Pod
from kproxy.problems import KproxyError, UsageError
from kproxy.settings.settings import Settings
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


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "env",
        help="print the environment variables that a pod has for services",
        description="Print the environment variables that a kubelet gives a pod for the services of its "
        "namespace, and for the service kubernetes of namespace default: as the running kproxy knows them, "
        "or with -f as manifests say. Allocations under --state-dir are used, not changed.",
    )
    parser.add_argument("pod", metavar="POD", help="the pod's name, or NAMESPACE/NAME")
    parser.add_argument(
        "-n", "--namespace", metavar="NAME", default=None, help="the pod's namespace (default: default)"
    )
    parser.add_argument(
        "--format",
        choices=tuple(FORMATS),
        default="export",
        help="for a shell, for `docker run --env-file`, or as a JSON object (default: %(default)s)",
    )
    options.add_view(parser)
    parser.set_defaults(run=run)


def pod_name(text: str, namespace: str | None) -> NamespacedName:
    """The pod that is asked for."""
    own, slash, name = text.rpartition("/")
    if slash and namespace not in (None, own):
        raise UsageError(f"{text} is not in the namespace that -n says, {namespace}.")
    return NamespacedName(own or namespace or "default", name)


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


def run(chosen: Settings, arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    wanted = pod_name(arguments.pod, arguments.namespace)
    given = look_up(chosen)
    options.print_problems(complaints(given))
    if "Pod" not in given.inventory.followed:
        raise KproxyError("kproxy does not follow Pods.", f"Ask kubectl: kubectl exec {wanted.name} -- env")
    variables = environment(given.inventory.services.values(), find_pod(given.inventory.pods, wanted))
    print(FORMATS[arguments.format](variables), end="")
    return 1 if given.problems else 0
