"""Ingresses -> routes of the listeners `http` and `https`.

A host with a certificate is served by both, and HTTP is redirected to HTTPS unless the Ingress says
otherwise. A host whose certificate cannot be used is left out of `https`; it is still redirected, because its
author wants no plain text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from kproxy.decode.fields import FieldError
from kproxy.decode.text import from_json
from kproxy.gateway.core.annotations import Annotations, Canary, Settings, settings, uses_regex
from kproxy.gateway.core.endpoints import Services
from kproxy.gateway.core.routes import (
    Action,
    Certificate,
    Filter,
    Forward,
    Host,
    Listener,
    Match,
    Owner,
    PathChange,
    PathKind,
    PathMatch,
    Policy,
    Redirect,
    Respond,
    RewriteFilter,
    Route,
    Routing,
    Share,
    ValueMatch,
)
from kproxy.gatewayapi import NO_OBJECTS, GatewayObjects
from kproxy.limits import GATEWAY_COMBINATIONS
from kproxy.model import Address, Ingress, IngressBackend, IngressClass, IngressPath, NamespacedName, Secret
from kproxy.problems import Problem, enumeration

CONTROLLER = "kproxy.io/ingress-controller"
"""spec.controller of IngressClasses whose Ingresses kproxy serves."""
CLASS = "kproxy"
"""The class that exists without an IngressClass."""
HTTP, HTTPS = "http", "https"
HTTPS_PORT = 443
DEFAULT = (-1, 0)
"""The index of the route of a default backend."""


class Objects(NamedTuple):
    """What routes are made from."""

    ingresses: Sequence[Ingress]
    services: Services
    """They contain those of Gateways, with their addresses."""
    classes: Sequence[IngressClass] = ()
    secrets: Mapping[NamespacedName, Secret] = {}
    gateways: GatewayObjects = NO_OBJECTS
    local: tuple[Address, ...] = ()
    """The addresses of this node."""

    def differs(self, other: Objects) -> bool:
        """Whether more than endpoints differs. Those of canaries count: without any, it gets no requests."""
        canaries = any("canary" in each.annotations for each in self.ingresses)
        services = self.services.services != other.services.services
        return canaries or services or self[2:] != other[2:] or self.ingresses != other.ingresses


class Ports(NamedTuple):
    """Where the listeners are."""

    http: int = 80
    https: int = HTTPS_PORT
    address: str = ""
    """ "" for all addresses."""


class Checked(NamedTuple):
    """A certificate that was looked at."""

    pem: bytes = b""
    """The chain and the key; empty if it cannot be used."""
    reason: str = ""
    """Why it cannot be used."""
    warning: str = ""
    expires: int = 0
    """Seconds since 1970."""
    early: bool = False
    """Whether it cannot be used because it is not valid yet."""
    hosts: tuple[str, ...] = ()
    """The hosts that are in it."""


class Routed(NamedTuple):
    """The routes, and what the objects have wrong."""

    routing: Routing
    problems: list[Problem]
    warnings: list[Problem]


def served(
    ingresses: Iterable[Ingress], classes: Sequence[IngressClass]
) -> tuple[list[Ingress], list[Problem]]:
    """Return the Ingresses that kproxy serves, oldest first, and a warning for each other one.

    It serves the class `kproxy`, the classes of its controller, and Ingresses without a class, unless another
    controller has the default class.
    """
    own = {CLASS} | {each.name for each in classes if each.controller == CONTROLLER}
    own -= {each.name for each in classes if each.controller != CONTROLLER}
    default = next((each.name for each in classes if each.is_default), CLASS)
    ordered = sorted(ingresses, key=lambda each: (not each.origin.created, each.origin.created, each.name))
    others = [each for each in ordered if (each.class_name or default) not in own]
    warnings = [_other_class(each, each.class_name or default) for each in others]
    return [each for each in ordered if (each.class_name or default) in own], warnings


def _other_class(ingress: Ingress, name: str) -> Problem:
    message = f"class {name!r} is not kproxy's. An IngressClass with the controller {CONTROLLER} makes it so"
    return Problem(ingress.origin.source, f"Ingress {ingress.name}", "spec.ingressClassName", message)


def certificates_of(ingresses: Iterable[Ingress]) -> set[NamespacedName]:
    """Return the Secrets whose certificates are to be checked."""
    return {
        NamespacedName(each.name.namespace, tls.secret)
        for each in ingresses
        for tls in each.tls
        if tls.secret
    }


def route(objects: Objects, certificates: Mapping[NamespacedName, Checked], ports: Ports) -> Routed:
    """Return the routing of all Ingresses. `certificates` has an entry for each of `certificates_of`."""
    return _Router(objects, certificates, ports).routed()


class _Entry(NamedTuple):
    """A path of a host, before it is known which listeners have it."""

    ingress: Ingress
    settings: Settings
    host: Host
    match: Match
    share: Share
    place: tuple[int, int]
    fallback: bool = False


class _Router:
    """Makes the routes of all Ingresses."""

    def __init__(
        self, objects: Objects, certificates: Mapping[NamespacedName, Checked], ports: Ports
    ) -> None:
        self._objects = objects
        self._checked = certificates
        self._ports = ports
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._encrypted: set[str] = set()
        """The hosts of all spec.tls."""
        self._certificates: dict[str, NamespacedName] = {}
        """By host: the Secret with a certificate that can be used."""
        self._canaries: dict[tuple[Host, Match], list[_Entry]] = defaultdict(list)

    def routed(self) -> Routed:
        """Return the result."""
        ingresses, warnings = served(self._objects.ingresses, self._objects.classes)
        self.warnings += warnings
        entries: list[_Entry] = []
        for each in ingresses:
            try:
                entries += self._entries(each)
                self._add_tls(each)
            except FieldError as error:
                self._problem(each, error.path, str(error))
                entries += self._closed(each)
        mains = self._without_canaries(entries)
        routes = [route for entry in mains for route in self._routes(entry)]
        return Routed(Routing(self._listeners(), tuple(routes)), self.problems, self.warnings)

    def _problem(self, ingress: Ingress, field: str, message: str) -> None:
        self.problems.append(Problem(ingress.origin.source, f"Ingress {ingress.name}", field, message))

    def _warn(self, ingress: Ingress, field: str, message: str) -> None:
        self.warnings.append(Problem(ingress.origin.source, f"Ingress {ingress.name}", field, message))

    # --- paths ---

    def _entries(self, ingress: Ingress) -> list[_Entry]:
        """Return the paths of an Ingress. Raises FieldError."""
        found = self._settings(ingress)
        _check_size(ingress, found)
        numbers = range(len(ingress.rules))
        entries = [entry for number in numbers for entry in self._rule(ingress, found, number)]
        if ingress.default_backend:
            share = self._share(ingress, ingress.default_backend, "spec.defaultBackend")
            hosts = {entry.host: None for entry in entries} | {Host(): None}
            entries += [
                _Entry(ingress, found, host, Match(), share, DEFAULT, fallback=True) for host in hosts
            ]
        return entries

    def _closed(self, ingress: Ingress) -> Iterator[_Entry]:
        """Yield the paths of an Ingress with an error. The status of their requests is 503.

        If they were left out, other paths of the host might match, which other clients may use.
        """
        annotations = self._annotations(ingress)
        if annotations.text("canary") == "true":
            return
        self._add_tls(ingress)
        found, none = Settings(regex=uses_regex(annotations), reply=Respond(503)), Share("", ())
        for index, rule in enumerate(ingress.rules):
            for number, path in enumerate(rule.paths):
                yield _Entry(ingress, found, Host(rule.host), _match(path, found), none, (index, number))

    def _annotations(self, ingress: Ingress) -> Annotations:
        namespace, texts = ingress.name.namespace, ingress.annotations
        values = from_json(texts.encode(), dict[str, str]) if texts else {}
        return Annotations(
            values,
            lambda name: self._objects.secrets.get(
                NamespacedName(namespace, name.removeprefix(f"{namespace}/"))
            ),
        )

    def _settings(self, ingress: Ingress) -> Settings:
        found, warnings = settings(self._annotations(ingress))
        for field, message in warnings:
            self._warn(ingress, field, message)
        return found

    def _rule(self, ingress: Ingress, found: Settings, index: int) -> Iterator[_Entry]:
        rule = ingress.rules[index]
        hosts = [Host(rule.host), *(Host(each) for each in found.aliases if rule.host)]
        for number, path in enumerate(rule.paths or _default_paths(ingress)):
            share = self._share(ingress, path.backend, f"spec.rules[{index}].http.paths[{number}].backend")
            for host in hosts:
                yield _Entry(ingress, found, host, _match(path, found), share, (index, number))

    def _share(self, ingress: Ingress, backend: IngressBackend, field: str) -> Share:
        if backend.resource:
            self._warn(ingress, field, f"{backend.resource} is not a Service: the status is 503")
            return Share(f"{ingress.name}:resource", ())
        name = NamespacedName(ingress.name.namespace, backend.service)
        share, reason = self._objects.services.share(name, backend.port)
        if reason:
            self._warn(ingress, field, f"{reason}: the status is 503")
        return share

    # --- canaries ---

    def _without_canaries(self, entries: Iterable[_Entry]) -> list[_Entry]:
        """Return the entries of other Ingresses, the first of those for the same requests."""
        mains: dict[tuple[Host, Match, bool], _Entry] = {}
        for entry in entries:
            if entry.settings.canary:
                self._canaries[entry.host, entry.match].append(entry)
                continue
            first = mains.setdefault((entry.host, entry.match, entry.fallback), entry)
            if first is not entry and not entry.fallback:
                message = f"Ingress {first.ingress.name} has this path already"
                self._warn(entry.ingress, _field(entry.place), message)
        for (host, match), found in self._canaries.items():
            if (host, match, False) not in mains:
                self._warn(found[0].ingress, _field(found[0].place), "is a canary of no other Ingress")
        return list(mains.values())

    def _variants(self, entry: _Entry) -> Iterator[tuple[Match, tuple[Share, ...]]]:
        """Yield the shares of an entry by the conditions on headers that choose them."""
        canaries = [] if entry.fallback else self._canaries.get((entry.host, entry.match), [])
        if not canaries:
            yield entry.match, (entry.share,)
            return
        other = canaries[0]
        canary = other.settings.canary
        assert canary is not None
        for header, chosen in _choices(canary):
            yield replace(entry.match, headers=(header,)), (other.share if chosen else entry.share,)
        weight = min(canary.weight, canary.total) if other.share.servers else 0
        main = replace(entry.share, weight=canary.total - weight)
        yield entry.match, (main, replace(other.share, weight=weight)) if weight else (entry.share,)

    # --- routes ---

    def _routes(self, entry: _Entry) -> Iterator[Route]:
        host, found = entry.host.name, entry.settings
        plain = self._is_plain(host, found)
        if not plain:
            yield self._route(HTTP, entry, entry.match, _to_https(self._ports.https), (), Policy())
        listeners = [HTTP] if plain else []
        if self._encrypted and (not host or _covering(host, self._certificates)):
            listeners.append(HTTPS)
        for listener in listeners:
            if found.app_root and entry.match.path.text == "/":
                match = replace(entry.match, path=PathMatch(PathKind.EXACT, "/"))
                root = Redirect(path=PathChange(found.app_root))
                yield self._route(listener, entry, match, root, (), Policy())
            for match, shares in self._variants(entry):
                action = found.reply or Forward(shares)
                yield self._route(listener, entry, match, action, _filters(found), found.policy)

    def _is_plain(self, host: str, found: Settings) -> bool:
        """Whether a host is served without TLS."""
        if found.to_https is not None:
            return not found.to_https
        return not (host and _covering(host, self._encrypted))

    def _route(
        self,
        listener: str,
        entry: _Entry,
        match: Match,
        action: Action,
        filters: tuple[Filter, ...],
        policy: Policy,
    ) -> Route:
        owner = Owner("Ingress", entry.ingress.name, entry.ingress.origin)
        place, fallback = entry.place, entry.fallback
        return Route(
            listener, owner, entry.host, match, action, filters, policy, place, _field(place), fallback
        )

    # --- TLS ---

    def _add_tls(self, ingress: Ingress) -> None:
        for index, tls in enumerate(ingress.tls):
            hosts = tls.hosts or tuple(rule.host for rule in ingress.rules if rule.host)
            self._encrypted |= set(hosts)
            name = NamespacedName(ingress.name.namespace, tls.secret)
            checked = self._checked[name] if tls.secret else Checked(reason="is missing")
            field = f"spec.tls[{index}].secretName"
            if checked.reason:
                left_out = f"; left out: {', '.join(hosts)}" if hosts else ""
                self._problem(ingress, field, f"{checked.reason}{left_out}")
                continue
            if checked.warning:
                self._warn(ingress, field, checked.warning)
            for host in hosts:
                self._certificates.setdefault(host, name)

    def _listeners(self) -> tuple[Listener, ...]:
        address = self._ports.address
        hosts: dict[NamespacedName, list[str]] = defaultdict(list)
        for host, name in sorted(self._certificates.items()):
            hosts[name].append(host)
        certificates = tuple(
            Certificate(str(name), self._checked[name].pem, tuple(found))
            for name, found in sorted(hosts.items())
        )
        http = Listener(HTTP, self._ports.http, address)
        https = Listener(HTTPS, self._ports.https, address, tls=True, certificates=certificates)
        return (http, https) if self._encrypted else (http,)


def _check_size(ingress: Ingress, found: Settings) -> None:
    """Check that an Ingress does not become many more routes than it has paths."""
    size = sum(len(rule.paths) for rule in ingress.rules) * (1 + len(found.aliases))
    if found.aliases and size > GATEWAY_COMBINATIONS:
        message = f"paths x hosts of server-alias are {size} combinations: at most {GATEWAY_COMBINATIONS}"
        raise FieldError("spec.rules", message)


def _default_paths(ingress: Ingress) -> tuple[IngressPath, ...]:
    """Return the path of a rule that has none: all its requests go to the default backend."""
    backend = ingress.default_backend
    return (IngressPath("/", "Prefix", backend),) if backend else ()


def _match(path: IngressPath, found: Settings) -> Match:
    """Return the match of a path. `/a/*` of an ImplementationSpecific one is a prefix, as in GKE."""
    text = path.path or "/"
    if path.path_type == "Exact":
        return Match(PathMatch(PathKind.EXACT, text))
    if found.regex:
        return Match(PathMatch(PathKind.REGEX, text, any_case=True))
    if path.path_type == "ImplementationSpecific" and text.endswith("/*"):
        text = text[:-1]
    return Match(PathMatch(PathKind.PREFIX, text))


def _field(index: tuple[int, int]) -> str:
    rule, path = index
    return "spec.defaultBackend" if index == DEFAULT else f"spec.rules[{rule}].http.paths[{path}]"


def _choices(canary: Canary) -> Iterator[tuple[ValueMatch, bool]]:
    """Yield conditions in the order in which they are tried, and whether they choose the canary."""
    if canary.header and canary.pattern:
        yield ValueMatch(canary.header, canary.pattern, regex=True), True
    elif canary.header and canary.value:
        yield ValueMatch(canary.header, canary.value), True
    elif canary.header:
        yield ValueMatch(canary.header, "always"), True
        yield ValueMatch(canary.header, "never"), False
    if canary.cookie:
        for word, chosen in (("always", True), ("never", False)):
            yield ValueMatch("cookie", f"(?:^|; ?){canary.cookie}={word}(?:;|$)", regex=True), chosen


def wrong_hosts(
    listeners: Iterable[Listener],
    checked: Mapping[NamespacedName, Checked],
    secrets: Mapping[NamespacedName, Secret],
) -> Iterator[Problem]:
    """Yield a warning for each certificate that is used for hosts that are not in it."""
    used: dict[str, set[str]] = defaultdict(set)
    for certificate in (each for listener in listeners for each in listener.certificates):
        used[certificate.name].update(certificate.hosts)
    for name, found in sorted(checked.items()):
        others = [host for host in sorted(used[str(name)]) if not _covering(host, found.hosts)]
        if others and found.hosts:
            message = f"the certificate is not for {enumeration(others)}: clients refuse it there"
            yield Problem(secrets[name].origin.source, f"Secret {name}", "data[tls.crt]", message)


def _covering(host: str, hosts: Iterable[str]) -> bool:
    """Whether a host or the wildcard above it is among hosts."""
    known = hosts if isinstance(hosts, set | dict) else set(hosts)
    return host in known or f"*.{host.partition('.')[2]}" in known


def _filters(found: Settings) -> tuple[Filter, ...]:
    rewrite = (RewriteFilter(path=PathChange(found.rewrite)),) if found.rewrite else ()
    return (*found.filters, *rewrite)


def _to_https(port: int) -> Redirect:
    return Redirect("https", port=0 if port == HTTPS_PORT else port, status=308)
