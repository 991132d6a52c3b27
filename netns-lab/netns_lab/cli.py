"""``netns-lab``: labs from the command line.

Exit status 0: done; 1: failed, with a message on stderr; 2: usage error. ``exec``
becomes the command, and has its exit status.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from netns_lab import mntns, netns, registry
from netns_lab.manifests import as_list, pod_manifests
from netns_lab.registry import Follows
from netns_lab.topology import Pod, Topology, chapter, multi, nodes_only, single


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    words, command = _split(argv)
    arguments = _parser().parse_args(words)
    arguments.command = command
    try:
        arguments.verb(arguments)
    except (OSError, LookupError, ValueError, RuntimeError) as error:
        print(f"netns-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the words before and after ``--``."""
    if "--" not in argv:
        return argv, []
    return argv[: argv.index("--")], argv[argv.index("--") + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="netns-lab", description="Nodes, pods and clients in network namespaces."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    up = verbs.add_parser("up", help="start a lab that stays until down", description=TOPOLOGIES)
    up.add_argument("topology", nargs="?", choices=("chapter", "single", "multi"))
    up.add_argument(
        "--manifests",
        metavar="PATH",
        action="append",
        help="instead of a topology: start the pods of the Pods and workloads in this file or folder",
    )
    up.add_argument("--name", help="name of the lab (default: six hexadecimal digits)")
    up.add_argument("--pods", type=_count, default=3, help="pods (multi: on each node); default %(default)s")
    up.add_argument(
        "--nodes", type=_count, help="nodes of multi (default 2) and with --manifests (default 1)"
    )
    up.add_argument(
        "--pod-environment",
        metavar="COMMAND",
        help="command that prints a pod's environment as NAME=value lines; runs for each pod, with {pod}, "
        "{namespace} and {node} replaced and the pods' manifests on standard input",
    )
    up.add_argument(
        "--pod-resolv-conf",
        metavar="COMMAND",
        help="with --manifests: command that prints a pod's /etc/resolv.conf; runs as the other one",
    )
    up.set_defaults(verb=_up)

    down = verbs.add_parser("down", help="remove a lab with everything that runs in it")
    which = down.add_mutually_exclusive_group(required=True)
    which.add_argument("lab", nargs="?", metavar="LAB")
    which.add_argument("--all", action="store_true", help="all labs, including those of running tests")
    down.set_defaults(verb=_down)

    listing = verbs.add_parser("list", help="list the labs and their contents")
    listing.set_defaults(verb=_list)

    execute = verbs.add_parser(
        "exec", help="run a command in a node, pod or client", usage="%(prog)s [LAB] HOST -- COMMAND..."
    )
    execute.add_argument("names", nargs="+", metavar="[LAB] HOST", help=HOST)
    execute.set_defaults(verb=_exec)

    for name, about, verb in (
        ("apply", "start and remove pods as the manifests say now", _apply),
        ("scale", "change the replicas of a workload in its manifest, and apply that", _scale),
        ("delete", "remove pods; those of a workload are made anew", _delete),
    ):
        change = verbs.add_parser(name, help=about)
        change.add_argument("--lab", metavar="LAB", help="default: the only lab that follows manifests")
        change.set_defaults(verb=verb)
        if name == "scale":
            change.add_argument("workload", metavar="KIND/NAME", help="for example rc/kubia")
            change.add_argument("replicas", metavar="N", type=partial(_count, least=0))
        if name == "delete":
            change.add_argument("pods", nargs="+", metavar="pod NAME", help="or pod/NAME")

    manifests = verbs.add_parser("manifests", help="print the pods as Kubernetes objects (a JSON List)")
    manifests.add_argument("lab", metavar="LAB")
    manifests.set_defaults(verb=_manifests)

    prune = verbs.add_parser("prune", help="remove the labs of killed processes")
    prune.set_defaults(verb=_prune)
    return parser


HOST = "the name of a node, pod or client, or lan; without LAB, of the only lab that has it"
TOPOLOGIES = (
    "chapter: a node with kubia pods, a client pod and an external client. "
    "single: a node with pods pod-1, pod-2... multi: nodes n1, n2..., each with pods n1-pod-1, n1-pod-2..."
)


def _count(text: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= 100):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to 100")
    return int(text)


def _up(arguments: argparse.Namespace) -> None:
    from netns_lab.lab import Lab  # imports pyroute2: half a second, which other verbs save

    if arguments.manifests and arguments.topology:
        raise ValueError(f"--manifests determines the pods: leave out {arguments.topology!r}")
    topology = _nodes_for(arguments) if arguments.manifests else _topology(arguments)
    with Lab(topology, arguments.name) as lab:
        name = lab.id
        if arguments.manifests:
            from netns_lab.following import follow

            paths = tuple(str(Path(path).resolve()) for path in arguments.manifests)
            commands = arguments.pod_environment or "", arguments.pod_resolv_conf or ""
            follow(lab, Follows(paths, str(Path.cwd()), *commands))
        lab.detach()
    _describe(registry.load(name))


def _topology(arguments: argparse.Namespace) -> Topology:
    from netns_lab.surroundings import with_environments

    build = {
        "chapter": lambda: chapter(arguments.pods),
        "single": lambda: single(arguments.pods),
        "multi": lambda: multi(arguments.nodes or 2, arguments.pods),
    }
    topology = build[arguments.topology or "chapter"]()
    return with_environments(topology, arguments.pod_environment) if arguments.pod_environment else topology


def _nodes_for(arguments: argparse.Namespace) -> Topology:
    """Return the nodes and external hosts of a lab that follows manifests."""
    from netns_lab.documents import documents
    from netns_lab.external import external_hosts

    external = external_hosts(manifest for _, manifest in documents(arguments.manifests))
    return nodes_only(arguments.nodes or 1, external)


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
    *labs, name = arguments.names
    if len(labs) > 1 or not arguments.command:
        raise ValueError("exec needs [LAB] HOST -- COMMAND...")
    record = registry.load(labs[0]) if labs else _only_lab(lambda lab: _has(lab, name), f"has {name!r}")
    host = None if name == "lan" else record.topology.host(name)
    netns.enter(record.namespace(name))
    environment = dict(os.environ)
    if isinstance(host, Pod):
        mntns.enter(record.files(host.name))
        environment |= host.environment
    try:
        os.execvpe(arguments.command[0], arguments.command, environment)
    except OSError as error:
        raise RuntimeError(f"{arguments.command[0]}: {error.strerror}") from None


def _only_lab(suits: Callable[[registry.Record], bool], what: str) -> registry.Record:
    """Return the only lab without an owner that suits. Raises LookupError if there is none, or several."""
    found = [record for record in registry.labs() if record.owner is None and suits(record)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise LookupError(f"no lab {what}")
    raise LookupError(f"several labs, name one: {', '.join(record.id for record in found)}")


def _has(record: registry.Record, host: str) -> bool:
    return host == "lan" or any(each.name == host for each in record.topology.hosts)


def _changed(arguments: argparse.Namespace) -> str:
    """Return the lab that a command changes."""
    _need_root()
    return arguments.lab or _only_lab(lambda lab: lab.follows is not None, "follows manifests").id


def _apply(arguments: argparse.Namespace) -> None:
    from netns_lab import following
    from netns_lab.lab import Lab

    with Lab.attached(_changed(arguments)) as lab:
        _print_changes(following.apply(lab))


def _scale(arguments: argparse.Namespace) -> None:
    from netns_lab import following
    from netns_lab.lab import Lab

    with Lab.attached(_changed(arguments)) as lab:
        _print_changes(following.scale(lab, arguments.workload, arguments.replicas))


def _delete(arguments: argparse.Namespace) -> None:
    from netns_lab import following
    from netns_lab.lab import Lab

    names = [word.removeprefix("pod/") for word in arguments.pods if word not in ("pod", "pods", "po")]
    if not names:
        raise ValueError("delete needs pod NAME...")
    with Lab.attached(_changed(arguments)) as lab:
        _print_changes(following.delete(lab, names))


def _print_changes(lines: list[str]) -> None:
    print("\n".join(lines) or "nothing to change")


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
    if record.follows:
        print(f"  objects {record.objects()}")
    topology = record.topology
    for kind, hosts in (("node", topology.nodes), ("pod", topology.pods), ("client", topology.clients)):
        for host in hosts:
            addresses = " ".join(topology.addresses(host).values())
            print(f"  {kind:6}  {host.name:20} {record.namespace(host.name):32} {addresses}")
