"""What pods get from their cluster when they start, as the output of commands.

The environment is a line ``NAME=value`` for each variable. The shell runs a command with
{pod}, {namespace} and {node} replaced by their names, and with the pods as a v1 List on
standard input.
"""

import json
import subprocess
from dataclasses import replace

from netns_lab.manifests import as_list, pod_manifests
from netns_lab.topology import Pod, Topology


def with_environments(topology: Topology, command: str) -> Topology:
    """Return the topology with the variables that ``command`` prints for each pod.

    Raises RuntimeError if it fails, ValueError if it prints something else.
    """
    pods = (replace(pod, environment=parse(ask(command, pod, topology))) for pod in topology.pods)
    return replace(topology, pods=tuple(pods))


def ask(command: str, pod: Pod, topology: Topology, directory: str | None = None) -> str:
    """Return what a command prints for a pod; "" without a command. Raises RuntimeError if it fails."""
    if not command:
        return ""
    namespace = pod.manifest.get("metadata", {}).get("namespace", "default")
    line = command.replace("{pod}", pod.name).replace("{namespace}", namespace).replace("{node}", pod.node)
    pods = json.dumps(as_list(pod_manifests(topology)))
    done = subprocess.run(line, shell=True, cwd=directory, input=pods, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"pod {pod.name}: exit status {done.returncode} of {line}")
    return done.stdout


def parse(text: str) -> dict[str, str]:
    """Parse NAME=value lines. Empty lines are ignored. Raises ValueError for any other line."""
    variables = {}
    for line in filter(None, text.splitlines()):
        name, equals, value = line.partition("=")
        if not name or not equals:
            raise ValueError(f"{line!r} is not NAME=value")
        variables[name] = value
    return variables
