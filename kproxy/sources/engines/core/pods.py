"""Manifests of pods, made from containers.

A container is a pod of its own, or a part of the pod in which podman runs it. The manifests are decoded as
those of files are, so the same rules hold for them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from kproxy.decode.text import from_json
from kproxy.sources.engines.core.answers import Inspected, Member

NAMESPACE_LABEL = "kproxy.io/namespace"
PORTS_LABEL = "kproxy.io/ports"
"""Names of ports: `http=8080,metrics=9090/tcp`."""
PROBE_LABEL = "kproxy.io/readiness-probe"
"""A readinessProbe of Kubernetes as JSON."""
GATE = "kproxy.io/container"
"""A readiness gate: the container runs, and its health check, if it has one, succeeds."""
CONTAINER_ANNOTATION = "kproxy.io/container"
"""On a found pod: the engine and the names of its containers."""
PRESENT = ("running", "paused", "stopping")
"""The states in which a container has a network."""
PROBE_LEVELS = 500
PORT_DIGITS = 5
NO_CHECK = ("", "none", "healthy")
_OTHER = re.compile(r"[^a-z0-9.-]+")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?)?")
_LABEL_KEY = re.compile(r"([-.a-z0-9]{1,253}/)?[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")


class Choice(NamedTuple):
    """How containers become pods."""

    engine: str
    """`podman` or `docker`."""
    node: str
    """The name of this node, on which the pods are."""
    network: str = ""
    """The network whose addresses are used; "" for that of each family that comes first by name."""


class _Group(Struct, frozen=True):
    """The containers of one pod."""

    name: str
    identity: str
    """The ID of the container, or of podman's pod."""
    containers: list[Inspected]
    infra: list[Inspected]


class PodManifests:
    """Makes the manifests of pods. One is made again only if an object of its containers is another one."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._made: dict[str, _Made] = {}

    def of(
        self, containers: Iterable[Inspected], members: Mapping[str, Member], stopping: Set[str]
    ) -> dict[str, bytes]:
        """Return the manifests as JSON by the IDs of the pods, sorted by name.

        `members` are by the IDs of containers. `stopping` are the IDs of containers that the engine was told
        to stop. Their pods are terminating.
        """
        groups = _groups((each for each in containers if each.state.status in PRESENT), members)
        self._made = {group.identity: self._manifest(group, stopping) for group in groups}
        in_order = sorted(self._made.values(), key=lambda made: made.name)
        return {made.group.identity: made.text for made in in_order}

    def _manifest(self, group: _Group, stopping: Set[str]) -> _Made:
        ending = tuple(each.id in stopping for each in group.containers)
        before = self._made.get(group.identity)
        if before is not None and before.ending == ending and _same(before.group, group):
            return before
        made = _manifest(group, frozenset(each.id for each in group.containers) & stopping, self._choice)
        name = (made["metadata"]["namespace"], made["metadata"]["name"])
        return _Made(group, ending, name, msgspec.json.encode(made))


class _Made(Struct, frozen=True):
    """A manifest, and what it was made from."""

    group: _Group
    ending: tuple[bool, ...]
    name: tuple[str, str]
    text: bytes


def _same(one: _Group, other: _Group) -> bool:
    """Whether two groups have identical containers."""
    before, now = (*one.containers, *one.infra), (*other.containers, *other.infra)
    return one.name == other.name and len(before) == len(now) and all(map(operator.is_, before, now))


def _groups(containers: Iterable[Inspected], members: Mapping[str, Member]) -> Iterator[_Group]:
    pods: dict[str, _Group] = {}
    for container in containers:
        member = members.get(container.id)
        if member is None or not member.pod:
            yield _Group(container.name.lstrip("/"), container.id, [container], [])
            continue
        group = pods.setdefault(member.pod, _Group(member.pod_name, member.pod, [], []))
        (group.infra if member.infra else group.containers).append(container)
    yield from (group for group in pods.values() if group.containers)


def _manifest(group: _Group, stopping: Set[str], choice: Choice) -> dict[str, Any]:
    labels = {key: text for each in group.containers for key, text in (each.config.labels or {}).items()}
    ready = all(_is_ready(container) for container in group.containers)
    names = " ".join(container.name.lstrip("/") for container in group.containers)
    metadata = {
        "name": _dns_name(group.name),
        "namespace": labels.get(NAMESPACE_LABEL) or "default",
        "uid": group.identity,
        "creationTimestamp": min(container.created for container in group.containers),
        "labels": {key: text for key, text in labels.items() if _is_label(key, text)},
        "annotations": {CONTAINER_ANNOTATION: f"{choice.engine} {names}"},
    }
    if any(each.id in stopping or each.state.status == "stopping" for each in group.containers):
        metadata["deletionTimestamp"] = metadata["creationTimestamp"]
    on_host = any(each.host_config.network_mode == "host" for each in group.containers + group.infra)
    spec = {
        "nodeName": choice.node,
        "containers": [_container(each) for each in group.containers],
        "readinessGates": [{"conditionType": GATE}],
        **({"hostNetwork": True} if on_host else {}),
    }
    addresses = [] if on_host else _addresses(group.containers + group.infra, choice.network)
    status = {
        "phase": "Running",
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": [{"type": kind, "status": str(ready)} for kind in ("Ready", GATE)],
        "containerStatuses": [
            {
                "name": _container_name(each),
                "ready": _is_ready(each),
                "restartCount": each.restarts,
                "containerID": f"{choice.engine}://{each.id}",
            }
            for each in group.containers
        ],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def _is_ready(container: Inspected) -> bool:
    health = container.state.health.status if container.state.health else ""
    return container.state.status == "running" and health in NO_CHECK


def _is_label(key: str, text: str) -> bool:
    """Whether Kubernetes allows a label. No selector can match others."""
    return bool(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(text))


def _dns_name(name: str) -> str:
    """Return the name as one that a pod can have: `shop_web_1` becomes `shop-web-1`."""
    parts = (part.strip("-") for part in _OTHER.sub("-", name.lower())[:253].split("."))
    return ".".join(filter(None, parts))


def _addresses(containers: Iterable[Inspected], network: str) -> list[str]:
    """Return at most one address of each family."""
    found: dict[str, str] = {}
    for container in containers:
        for name, attached in sorted((container.network_settings.networks or {}).items()):
            if network in ("", name):
                for family, address in (("ipv4", attached.ipv4), ("ipv6", attached.ipv6)):
                    if address:
                        found.setdefault(family, address)
    return [found[family] for family in sorted(found)]


def _container(container: Inspected) -> dict[str, Any]:
    labels = container.config.labels or {}
    named = list(_named_ports(labels.get(PORTS_LABEL, "")))
    with_name = {(each["containerPort"], each.get("protocol")) for each in named}
    texts = {*(container.config.exposed or {}), *(container.network_settings.ports or {})}
    others = [
        {"containerPort": number, "protocol": protocol.upper()}
        for number, protocol in sorted(filter(None, map(_port, texts)))
        if (number, protocol.upper()) not in with_name
    ]
    probe = labels.get(PROBE_LABEL)
    return {
        "name": _container_name(container),
        "ports": [*named, *others],
        **({"readinessProbe": _json(probe)} if probe else {}),
    }


def _json(text: str) -> Any:
    """Return the value of a JSON text. Another text stays as it is, and is a problem of the pod.

    So does one that may have many levels: it could be read alone, and not as a part of the manifest.
    """
    if text.count("[") + text.count("{") > PROBE_LEVELS:
        return text
    try:
        return from_json(text.encode(), Any)
    except (msgspec.DecodeError, RecursionError):
        return text


def _container_name(container: Inspected) -> str:
    return _dns_name(container.name.lstrip("/")).replace(".", "-")[:63].rstrip("-")


def _port(text: str) -> tuple[int, str] | None:
    """Parse `8080/tcp`, or `8080`. None for other texts, for example ranges."""
    number, _, protocol = text.partition("/")
    is_number = number.isascii() and number.isdigit() and len(number) <= PORT_DIGITS
    return (int(number), protocol or "tcp") if is_number else None


def _named_ports(text: str) -> Iterator[dict[str, Any]]:
    """Yield the ports in the label. A part that cannot be parsed is a problem of the pod."""
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, where = part.partition("=")
        number, protocol = _port(where) or (part, "tcp")
        yield {"name": name, "containerPort": number, "protocol": protocol.upper()}
