"""Kubernetes objects -> the pods that a cluster would run for them. Computes only.

``read_objects`` returns the workloads and Pods of manifests, ``plan`` compares them with
the pods of a lab: which pods must go, and which are missing. The pods of a
ReplicationController or ReplicaSet stay when its template changes, as in a cluster; those
of a Deployment are replaced, because their names contain a hash of the template.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

from netns_lab.images import ports_of
from netns_lab.topology import Node, Pod, Port, Topology, pod_addresses

Object = Mapping[str, Any]
SHORT_KINDS = {
    "rc": "ReplicationController",
    "rs": "ReplicaSet",
    "deploy": "Deployment",
    "sts": "StatefulSet",
    "ds": "DaemonSet",
}
KINDS = frozenset(SHORT_KINDS.values())
GROUPS = ("", "apps", "extensions")
LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""The characters in the generated part of a pod's name: Kubernetes avoids those that form words."""
LONGEST = 63
MOST = 100
"""The maximum number of replicas, and of pods in a lab."""


@dataclass(frozen=True)
class Wanted:
    """What a manifest asks for: one Pod, or the pods of a workload."""

    kind: str
    name: str
    namespace: str
    replicas: int | None
    """None for a DaemonSet: one on each node."""
    metadata: Object
    spec: Object
    labels: Mapping[str, str]
    ports: tuple[Port, ...]
    environment: Mapping[str, str]
    addresses: tuple[str, ...] = ()
    """Those that the manifest of a Pod has already."""

    @property
    def prefix(self) -> str:
        """The beginning of the names of its pods."""
        if self.kind != "Deployment":
            return f"{self.name}-"
        text = json.dumps([self.metadata, self.spec], sort_keys=True)
        suffix = f"-{_letters(crc32(text.encode()), 7)}-"
        return self.name[: LONGEST - 5 - len(suffix)] + suffix

    def owns(self, pod: Pod) -> bool:
        """Whether a pod of the lab was started for this."""
        metadata = pod.manifest.get("metadata", {})
        if self.kind == "Pod":
            return pod.name == self.name and not metadata.get("ownerReferences")
        owner = {"kind": self.kind, "name": self.name}
        found = [{"kind": each["kind"], "name": each["name"]} for each in metadata.get("ownerReferences", ())]
        return owner in found and metadata.get("namespace") == self.namespace


def read_objects(objects: Iterable[Object]) -> list[Wanted]:
    """Return the Pods and workloads among objects and Lists. ValueError names an invalid object."""
    return [wanted for each in objects for wanted in _read(each)]


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{field}: {json.dumps(value)} is not text")
    return value


def _read(manifest: Object) -> Iterator[Wanted]:
    kind, version = manifest.get("kind"), str(manifest.get("apiVersion") or "")
    if kind == "List":
        with naming(manifest):
            items = [dict(each) for each in manifest.get("items") or ()]
        yield from read_objects(items)
    elif _is_known(str(kind), version):
        with naming(manifest):
            yield from _wanted(str(kind), manifest.get("metadata") or {}, manifest)


@contextmanager
def naming(manifest: Object) -> Iterator[None]:
    """Turn what an invalid object raises into a ValueError that names the object."""
    try:
        yield
    except (AttributeError, TypeError, LookupError, ValueError) as error:
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{manifest.get('kind')} {name or 'without a name'}: {what}") from None


def _is_known(kind: str, version: str) -> bool:
    return version == "v1" if kind == "Pod" else kind in KINDS and version.rpartition("/")[0] in GROUPS


def _wanted(kind: str, metadata: Object, manifest: Object) -> Iterator[Wanted]:
    spec = manifest.get("spec") or {}
    if any(owner.get("controller") for owner in metadata.get("ownerReferences") or ()):
        return  # its owner is in the manifests, too
    name = _text(metadata["name"], "metadata.name")
    namespace = _text(metadata.get("namespace") or "default", "metadata.namespace")
    if kind == "Pod":
        addresses = _addresses(manifest.get("status") or {})
        yield Wanted(kind, name, namespace, 1, metadata, spec, *_details(metadata, spec), addresses)
        return
    template = spec["template"]
    own = {"hostname": "", "subdomain": spec.get("serviceName")} if kind == "StatefulSet" else {}
    inner, pod = template.get("metadata") or {}, {**own, **template["spec"]}
    replicas = None if kind == "DaemonSet" else _replicas(spec)
    yield Wanted(kind, name, namespace, replicas, inner, pod, *_details(inner, pod))


def _replicas(spec: Object) -> int:
    replicas = spec.get("replicas")
    if replicas is None:
        return 1
    if not isinstance(replicas, int) or not 0 <= replicas <= MOST:
        raise ValueError(f"spec.replicas: {replicas!r} is not a number from 0 to {MOST}")
    return replicas


def _details(metadata: Object, spec: Object) -> tuple[Mapping[str, str], tuple[Port, ...], Mapping[str, str]]:
    """Return the labels, the ports and the variables of the pods."""
    labels = {key: str(value or "") for key, value in (metadata.get("labels") or {}).items()}
    return labels, _ports(spec), _environment(spec)


def _addresses(status: Object) -> tuple[str, ...]:
    listed = [_text(each["ip"], "status.podIPs") for each in status.get("podIPs") or ()]
    return tuple(listed or filter(None, [_text(status.get("podIP") or "", "status.podIP")]))


@dataclass(frozen=True)
class Plan:
    """What a lab has to do: pods that go, and pods that are missing."""

    remove: tuple[str, ...]
    start: tuple[Pod, ...]


def plan(
    wanted: Sequence[Wanted], topology: Topology, letters: Callable[[], str], doomed: Iterable[str] = ()
) -> Plan:
    """Compare what is wanted with the pods of a lab that were started for manifests.

    Pods in ``doomed`` go, and are replaced if they are wanted. ``letters`` returns five random letters
    for a name. Raises ValueError if two Pods have one name or a range has no more addresses.
    """
    made = [pod for pod in topology.pods if pod.manifest]
    kept: list[Pod] = []
    for each in wanted:
        kept += _kept(each, [pod for pod in made if each.owns(pod) and pod.name not in doomed])
    gone = tuple(pod.name for pod in made if pod not in kept)
    start: list[Pod] = []
    for each in wanted:
        own = [pod for pod in kept if each.owns(pod)]
        for name, node in _missing(each, own, topology, letters):
            taken = [*topology.pods, *start]
            start.append(
                _pod(each, name, node or _emptiest(topology.nodes, [*kept, *start]), taken, topology)
            )
    return Plan(gone, tuple(start))


def _kept(wanted: Wanted, own: list[Pod]) -> list[Pod]:
    """Return the pods that stay: the oldest ones, at most as many as are wanted."""
    if wanted.kind == "Pod" or wanted.replicas is None:
        return own
    if wanted.kind == "StatefulSet":
        names = {f"{wanted.prefix}{number}" for number in range(wanted.replicas)}
        return [pod for pod in own if pod.name in names]
    return [pod for pod in own if pod.name.startswith(wanted.prefix[: LONGEST - 5])][: wanted.replicas]


def _missing(
    wanted: Wanted, own: list[Pod], topology: Topology, letters: Callable[[], str]
) -> Iterator[tuple[str, str]]:
    """Yield the name of each missing pod, and its node if that is fixed."""
    present = {pod.name for pod in own}
    if wanted.kind == "Pod" and not own:
        yield wanted.name, ""
    elif wanted.kind == "StatefulSet":
        names = (f"{wanted.prefix}{number}" for number in range(wanted.replicas or 0))
        yield from ((name, "") for name in names if name not in present)
    elif wanted.replicas is None:
        nodes = {node.name for node in topology.nodes} - {pod.node for pod in own}
        yield from ((_generated(wanted, letters), node) for node in sorted(nodes))
    elif wanted.kind != "Pod":
        yield from ((_generated(wanted, letters), "") for _ in range(wanted.replicas - len(own)))


def _generated(wanted: Wanted, letters: Callable[[], str]) -> str:
    return wanted.prefix[: LONGEST - 5] + letters()


def _emptiest(nodes: Iterable[Node], pods: Iterable[Pod]) -> str:
    number = Counter(pod.node for pod in pods)
    return min(nodes, key=lambda node: number[node.name]).name


def _pod(wanted: Wanted, name: str, node: str, taken: Iterable[Pod], topology: Topology) -> Pod:
    spec = dict(wanted.spec)
    if wanted.kind == "StatefulSet":
        spec["hostname"] = name
    node = spec.get("nodeName") or node
    host_network = bool(spec.get("hostNetwork"))
    addresses = {} if host_network else pod_addresses(topology.node(node), taken)
    for address in wanted.addresses if not host_network else ():
        addresses[6 if ":" in address else 4] = address
    return Pod(
        name,
        node,
        v4=addresses.get(4, ""),
        v6=addresses.get(6, ""),
        labels=wanted.labels,
        ports=wanted.ports,
        host_network=host_network,
        environment=wanted.environment,
        manifest={"metadata": _metadata(wanted), "spec": spec, "complete": bool(wanted.addresses)},
    )


def _metadata(wanted: Wanted) -> Object:
    """Return the metadata of a pod without its name and labels."""
    kept = {"annotations": wanted.metadata["annotations"]} if wanted.metadata.get("annotations") else {}
    if wanted.kind == "Pod":
        return {"namespace": wanted.namespace, **kept}
    owner = {"kind": wanted.kind, "name": wanted.name, "controller": True}
    return {"namespace": wanted.namespace, **kept, "ownerReferences": [owner]}


def _ports(spec: Object) -> tuple[Port, ...]:
    """Return the ports of all containers; of two with one number, the first."""
    ports: dict[tuple[int, str], Port] = {}
    for container in spec.get("containers") or ():
        for port in ports_of(container):
            ports.setdefault((port.number, port.protocol), port)
    return tuple(ports.values())


def _environment(spec: Object) -> dict[str, str]:
    """Return the variables with a value that the first container has."""
    first: Object = next(iter(spec.get("containers") or ()), {})
    named = [each for each in first.get("env") or () if "value" in each]
    return {_text(each["name"], "env"): str(each["value"]) for each in named}


def with_surroundings(pod: Pod, environment: Mapping[str, str], resolv_conf: str, now: str) -> Pod:
    """Return a pod with what its cluster adds when it starts. Variables of its manifest win."""
    metadata, spec = pod.manifest["metadata"], pod.manifest["spec"]
    uses_host = pod.host_network and spec.get("dnsPolicy") != "ClusterFirstWithHostNet"
    return replace(
        pod,
        environment={**environment, **pod.environment},
        resolv_conf="" if uses_host else resolv_conf,
        manifest={**pod.manifest, "metadata": {**metadata, "creationTimestamp": now}},
    )


def _letters(number: int, length: int) -> str:
    text = ""
    for _ in range(length):
        number, digit = divmod(number, len(LETTERS))
        text += LETTERS[digit]
    return text
