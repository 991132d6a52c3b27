"""A lab that follows manifests: it starts the pods that a cluster would start for them, and writes them down.

``apply`` makes the pods what the manifests say now. The directory ``Record.objects`` has one
file with the Nodes and with a Pod, its address and its probes, for each pod. A program for
Services reads this directory in addition to the manifests.

The replacement of a pod starts first. Then the pod is written down as terminating, and serves
for another ``DRAIN`` seconds, as a server does that ends orderly. It is removed last.
"""

import json
import secrets
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from netns_lab.documents import documents, replace_text, with_replicas
from netns_lab.lab import Lab
from netns_lab.manifests import as_list, lab_objects
from netns_lab.registry import Follows
from netns_lab.surroundings import ask, parse
from netns_lab.topology import Pod
from netns_lab.workloads import LETTERS, MOST, SHORT_KINDS, Wanted, plan, read_objects, with_surroundings

DRAIN = 0.5


def follow(lab: Lab, follows: Follows) -> None:
    """Let a running lab follow manifests, and start their pods."""
    lab.follow(follows)
    lab.record.objects().mkdir(mode=0o755)
    apply(lab)


def apply(lab: Lab, doomed: Collection[str] = ()) -> list[str]:
    """Start and remove pods as the manifests say. Pods in ``doomed`` are removed, and replaced if wanted.

    Returns a line for each change. Raises OSError and ValueError for invalid manifests, before any change.
    """
    return _apply(lab, [wanted for _, wanted in _wanted(lab)], doomed)


def _wanted(lab: Lab) -> list[tuple[Path, Wanted]]:
    """Return what the manifests want, each with its file."""
    found = []
    for path, manifest in documents(_follows(lab).manifests):
        try:
            found += [(path, each) for each in read_objects([manifest])]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return found


def _apply(lab: Lab, wanted: Sequence[Wanted], doomed: Collection[str] = ()) -> list[str]:
    changes = plan(wanted, lab.topology, _random_letters, doomed)
    if len(lab.topology.pods) - len(changes.remove) + len(changes.start) > MOST:
        raise ValueError(f"the manifests have more than {MOST} pods")
    present = {pod.name for pod in lab.topology.pods}
    _start(lab, [pod for pod in changes.start if pod.name not in present])
    _write_down(lab, changes.remove)
    if changes.remove:
        time.sleep(DRAIN)
        _write_down(lab, gone=changes.remove)
        for name in changes.remove:
            lab.remove_pod(name)
        _start(lab, [pod for pod in changes.start if pod.name in present])
        _write_down(lab)
    removed = [f"pod {name} is removed" for name in changes.remove]
    return removed + [f"pod {pod.name} is started" for pod in changes.start]


def delete(lab: Lab, names: Collection[str]) -> list[str]:
    """Remove pods. Those of a workload are replaced. Raises LookupError if one does not exist."""
    for name in names:
        if not lab.topology.pod(name).manifest:
            raise LookupError(f"pod {name} was not started for a manifest")
    return apply(lab, names)


def scale(lab: Lab, what: str, replicas: int) -> list[str]:
    """Set ``spec.replicas`` of KIND/NAME in its file, and apply that. LookupError if it does not exist.

    If pods are added, the manifest is written after they have started. So a program that compares both never
    misses pods.
    """
    kind, _, name = what.partition("/")
    kind = _full_kind(kind)
    found = _wanted(lab)
    for path, wanted in found:
        if (wanted.kind, wanted.name) == (kind, name):
            text = with_replicas(path.read_text(), kind, name, replicas)
            break
    else:
        raise LookupError(f"no {kind} {name!r} in the manifests")
    after = [replace(each, replicas=replicas) if each is wanted else each for _, each in found]
    if replicas < (wanted.replicas or 0):
        replace_text(path, text)
        return _apply(lab, after)
    changes = _apply(lab, after)
    replace_text(path, text)
    return changes


def _full_kind(word: str) -> str:
    """Return the kind that a word of the command line means. Raises LookupError for one without replicas."""
    kinds = {short: kind for short, kind in SHORT_KINDS.items() if kind != "DaemonSet"}
    names = kinds | {kind.lower(): kind for kind in kinds.values()}
    try:
        return names[word.lower().removesuffix("s") if word.lower() not in names else word.lower()]
    except KeyError:
        raise LookupError(f"{word!r} is not a kind with replicas: {', '.join(kinds)}") from None


def _follows(lab: Lab) -> Follows:
    if lab.record.follows is None:
        raise LookupError(f"the lab {lab.id!r} follows no manifests; `netns-lab up --manifests DIR` does")
    return lab.record.follows


def _start(lab: Lab, pods: Sequence[Pod]) -> None:
    """Start pods with what their cluster adds."""
    follows = _follows(lab)
    for pod in pods:
        after = lab.topology.with_pod(pod)
        environment, resolv_conf = (
            ask(command, pod, after, follows.directory)
            for command in (follows.environment, follows.resolv_conf)
        )
        lab.add_pod(with_surroundings(pod, parse(environment), resolv_conf, _now()))


def _write_down(lab: Lab, terminating: Collection[str] = (), gone: Collection[str] = ()) -> None:
    """Write the objects for other programs, without the pods that are `gone`."""
    topology = replace(lab.topology, pods=tuple(pod for pod in lab.topology.pods if pod.name not in gone))
    path = lab.record.objects() / "objects.json"
    new = path.with_suffix(".new")
    new.write_text(json.dumps(as_list(lab_objects(topology, terminating, _now())), indent=1) + "\n")
    new.rename(path)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _random_letters() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(5))
