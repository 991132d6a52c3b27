"""``netns-lab``: labs from the command line.

Exit code 0: done; 1: failed, with a message on stderr; 2: usage error. ``exec``
becomes the command, and has its exit code.
"""

import argparse
import json
import os
import sys

from netns_lab import mntns, netns, registry
from netns_lab.manifests import as_list, pod_manifests
from netns_lab.topology import Pod, chapter, multi, single


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        arguments.verb(arguments)
    except (OSError, LookupError, ValueError, RuntimeError) as error:
        print(f"netns-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netns-lab", description="Nodes, pods and clients in network namespaces."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    up = verbs.add_parser("up", help="start a lab that stays until down", description=TOPOLOGIES)
    up.add_argument("topology", nargs="?", choices=("chapter", "single", "multi"), default="chapter")
    up.add_argument("--name", help="name of the lab (default: six hexadecimal digits)")
    up.add_argument("--pods", type=_count, default=3, help="pods (multi: on each node); default %(default)s")
    up.add_argument("--nodes", type=_count, default=2, help="nodes of multi; default %(default)s")
    up.add_argument(
        "--pod-environment",
        metavar="COMMAND",
        help="command that prints a pod's environment as NAME=value lines; runs for each pod, with {pod} and "
        "{node} replaced and the pods' manifests on standard input",
    )
    up.set_defaults(verb=_up)

    down = verbs.add_parser("down", help="remove a lab with everything that runs in it")
    which = down.add_mutually_exclusive_group(required=True)
    which.add_argument("lab", nargs="?", metavar="LAB")
    which.add_argument("--all", action="store_true", help="all labs, including those of running tests")
    down.set_defaults(verb=_down)

    listing = verbs.add_parser("list", help="list the labs and their contents")
    listing.set_defaults(verb=_list)

    execute = verbs.add_parser("exec", help="run a command in a node, pod or client")
    execute.add_argument("lab", metavar="LAB")
    execute.add_argument("host", metavar="HOST", help="the name of a node, pod or client, or lan")
    execute.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    execute.set_defaults(verb=_exec)

    manifests = verbs.add_parser("manifests", help="print the pods as Kubernetes objects (a JSON List)")
    manifests.add_argument("lab", metavar="LAB")
    manifests.set_defaults(verb=_manifests)

    prune = verbs.add_parser("prune", help="remove the labs of killed processes")
    prune.set_defaults(verb=_prune)
    return parser


TOPOLOGIES = (
    "chapter: a node with kubia pods, a client pod and an external client. "
    "single: a node with pods pod-1, pod-2... multi: nodes n1, n2..., each with pods n1-pod-1, n1-pod-2..."
)


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return number


def _up(arguments: argparse.Namespace) -> None:
    from netns_lab.environment import with_environments
    from netns_lab.lab import Lab  # imports pyroute2: half a second, which other verbs save

    build = {
        "chapter": lambda: chapter(arguments.pods),
        "single": lambda: single(arguments.pods),
        "multi": lambda: multi(arguments.nodes, arguments.pods),
    }
    topology = build[arguments.topology]()
    if arguments.pod_environment:
        topology = with_environments(topology, arguments.pod_environment)
    with Lab(topology, arguments.name) as lab:
        name = lab.id
        lab.detach()
    _describe(registry.load(name))


def _down(arguments: argparse.Namespace) -> None:
    _need_root()
    labs = registry.labs() if arguments.all else [registry.load(arguments.lab)]
    for record in labs:
        registry.remove(record.id)
        print(f"{record.id} is down")


def _list(arguments: argparse.Namespace) -> None:
    for record in registry.labs():
        _describe(record)


def _exec(arguments: argparse.Namespace) -> None:
    _need_root()
    record = registry.load(arguments.lab)
    host = None if arguments.host == "lan" else record.topology.host(arguments.host)
    netns.enter(record.namespace(arguments.host))
    environment = dict(os.environ)
    if isinstance(host, Pod):
        mntns.enter(record.files(host.name))
        environment |= host.environment
    try:
        os.execvpe(arguments.command[0], arguments.command, environment)
    except OSError as error:
        raise RuntimeError(f"{arguments.command[0]}: {error.strerror}") from None


def _manifests(arguments: argparse.Namespace) -> None:
    print(json.dumps(as_list(pod_manifests(registry.load(arguments.lab).topology)), indent=2))


def _prune(arguments: argparse.Namespace) -> None:
    _need_root()
    for lab in registry.prune():
        print(f"{lab} is removed")


def _need_root() -> None:
    if os.geteuid() != 0:
        raise PermissionError("netns-lab needs root")


def _describe(record: registry.Record) -> None:
    owner = "stays until down" if record.owner is None else f"of process {record.owner.pid}"
    if record.orphaned():
        owner += ", which has died"
    print(f"{record.id} ({owner})")
    topology = record.topology
    for kind, hosts in (("node", topology.nodes), ("pod", topology.pods), ("client", topology.clients)):
        for host in hosts:
            addresses = " ".join(topology.addresses(host).values())
            print(f"  {kind:6}  {host.name:20} {record.namespace(host.name):32} {addresses}")
