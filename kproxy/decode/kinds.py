"""The kinds that kproxy knows, and objects whose kind or apiVersion is almost one of them.

An object of another kind is ignored. If that happened to a Service with a misspelt kind, it would be removed
from the tables. So what resembles a known kind is an error. Groups of other projects may have kinds of the
same name (`serving.knative.dev/v1` has a Service): they are other kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kproxy.gatewayapi import GROUP

if TYPE_CHECKING:
    from kproxy.decode.fields import Notes

LIST = "List"
GATEWAY_VERSIONS = tuple(f"{GROUP}/{version}" for version in ("v1", "v1beta1", "v1alpha2"))
L4_ROUTE_VERSIONS = (f"{GROUP}/v1", f"{GROUP}/v1alpha2")
UNUSED = frozenset({"GRPCRoute", "TLSRoute", "ListenerSet", "BackendTLSPolicy", "BackendLBPolicy"})
"""Kinds of the Gateway API that kproxy does not use. Some resemble kinds that it does."""
API_VERSIONS = {
    "Service": ("v1",),
    "Endpoints": ("v1",),
    "Pod": ("v1",),
    "Node": ("v1",),
    "EndpointSlice": ("discovery.k8s.io/v1",),
    "Ingress": ("networking.k8s.io/v1", "networking.k8s.io/v1beta1", "extensions/v1beta1"),
    "Namespace": ("v1",),
    "GatewayClass": GATEWAY_VERSIONS,
    "Gateway": GATEWAY_VERSIONS,
    "HTTPRoute": GATEWAY_VERSIONS,
    "TCPRoute": L4_ROUTE_VERSIONS,
    "UDPRoute": L4_ROUTE_VERSIONS,
    "ReferenceGrant": GATEWAY_VERSIONS,
    "IngressClass": ("networking.k8s.io/v1", "networking.k8s.io/v1beta1"),
    "Secret": ("v1",),
    LIST: ("v1",),
}
"""The apiVersions of each known kind, the usual one first."""
LISTS = {f"{kind}{LIST}": versions for kind, versions in API_VERSIONS.items() if kind != LIST}
KNOWN = {**API_VERSIONS, **LISTS}
GROUPS = {version.rpartition("/")[0] for versions in API_VERSIONS.values() for version in versions} - {""}
SHORT_NAMES = {
    "svc": "Service",
    "ep": "Endpoints",
    "po": "Pod",
    "no": "Node",
    "ing": "Ingress",
    "ns": "Namespace",
    "gc": "GatewayClass",
    "gtw": "Gateway",
    "refgrant": "ReferenceGrant",
}
_VERSION = r"(?i)(.+/)?v[0-9]+\w*"
_BETWEEN_WORDS = r"[\s_-]+"
OWN_DOMAINS = ("k8s.io", "kubernetes.io")
LONGEST = 100
"""The characters of a word that are compared. Results are cached, and a word may have megabytes."""


class Kind(Struct, frozen=True):
    """How an object of a kind is decoded."""

    wire: type[Any]
    to_model: Callable[[str, Any, Notes], list[Any]]
    """From the source, the object of the type `wire`, and the notes to which it may add."""
    schema: str
    """Its type in `schema`; "" if only clusters have such objects."""


class Slip(Struct, frozen=True):
    """A kind or an apiVersion that is almost right."""

    field: str
    message: str
    kind: str
    """The known kind that was probably meant."""


def find_slip(kind: str, api_version: str) -> Slip | None:
    """Return what is probably wrong with an unknown combination; None for a kind of another group."""
    if kind.removesuffix(LIST) in UNUSED:
        return None
    meant = _nearest_kind(kind)
    if not meant and re.fullmatch(_VERSION, kind) and (exchanged := _nearest_kind(api_version)):
        message = f'"{kind}" is not a kind, and apiVersion is "{api_version}": they are exchanged'
        return Slip("kind", message, exchanged)
    group = api_version.rpartition("/")[0]
    if not meant or not (api_version in KNOWN[meant] or _is_kubernetes_group(group)):
        return None
    if kind == meant:
        usual = _nearest_version(meant, api_version)
        message = f'"{api_version}" is not an apiVersion of {meant} that kproxy knows. Did you mean {usual}?'
        return Slip("apiVersion", message, meant)
    return Slip("kind", f'"{kind}" is not a kind that kproxy knows. Did you mean {meant}?', meant)


def _nearest_kind(kind: str) -> str:
    """Return the known kind that a word resembles, or "". Other kinds of Kubernetes resemble none.

    Of `v1/Service` and `Service.v1` the middle counts.
    """
    return _nearest(kind.rpartition("/")[2].partition(".")[0][:LONGEST])


@lru_cache(1024)
def _nearest(word: str) -> str:
    word = re.sub(_BETWEEN_WORDS, "", word).lower()
    if word in SHORT_NAMES:
        return SHORT_NAMES[word]
    edits = {known: _edits(word, known.lower()) for known in KNOWN}
    nearest = min(KNOWN, key=lambda known: (edits[known], word[:1] != known[:1].lower()))
    most = 1 if nearest in LISTS else (len(nearest) + 1) // 4
    return nearest if edits[nearest] <= most else ""


def _is_kubernetes_group(group: str) -> bool:
    """Whether a group belongs to Kubernetes, or almost: all others have a domain of their own."""
    group = group.strip().lower()
    if "." not in group or any(group == own or group.endswith(f".{own}") for own in OWN_DOMAINS):
        return True
    return any(_edits(group, known) <= 2 for known in GROUPS)


def _nearest_version(kind: str, api_version: str) -> str:
    group = api_version.rpartition("/")[0]
    same_group = (version for version in KNOWN[kind] if group and version.startswith(f"{group}/"))
    return next(same_group, KNOWN[kind][0])


def _edits(word: str, other: str) -> int:
    """Count the edits between two words: a letter inserted, deleted or replaced, or two exchanged."""
    if len(word) > 2 * len(other):
        return len(word) - len(other)  # at least as many: a word may be very long
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        before, above, row = row, before, [i] + [0] * len(other)
        for j, wanted in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and (letter, word[i - 2]) == (other[j - 2], wanted):
                row[j] = min(row[j], above[j - 2] + 1)
    return row[-1]
