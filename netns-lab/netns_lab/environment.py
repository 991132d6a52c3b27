"""The pods' environments, as the output of a command: a line ``NAME=value`` for each variable."""

import json
import subprocess
from dataclasses import replace

from netns_lab.manifests import as_list, pod_manifests
from netns_lab.topology import Pod, Topology


def with_environments(topology: Topology, command: str) -> Topology:
    """Return the topology with the variables that ``command`` prints for each pod.

    The shell runs it with {pod} and {node} replaced by their names, and with the pods as a v1 List on
    standard input. Raises RuntimeError if it fails, ValueError if it prints something else.
    """
    pods = json.dumps(as_list(pod_manifests(topology)))
    return replace(
        topology, pods=tuple(replace(pod, environment=_ask(command, pod, pods)) for pod in topology.pods)
    )


def _ask(command: str, pod: Pod, pods: str) -> dict[str, str]:
    line = command.replace("{pod}", pod.name).replace("{node}", pod.node)
    done = subprocess.run(line, shell=True, input=pods, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"the environment of {pod.name}: exit status {done.returncode} of {line}")
    return parse(done.stdout)


def parse(text: str) -> dict[str, str]:
    """Parse NAME=value lines. Empty lines are ignored. Raises ValueError for any other line."""
    variables = {}
    for line in filter(None, text.splitlines()):
        name, equals, value = line.partition("=")
        if not name or not equals:
            raise ValueError(f"{line!r} is not NAME=value")
        variables[name] = value
    return variables
