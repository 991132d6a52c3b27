"""What completion suggests for operands and namespaces: words of the verbs, and names of a running kproxy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kproxy.settings.verbs import VERBS

if TYPE_CHECKING:
    from kproxy.show.tables import Objects

TIMEOUT = 1.0
"""The maximum time in seconds to wait for the objects of a running kproxy."""


def operands(verb: str, flags: Mapping[str, Any], before: Sequence[str], incomplete: str) -> Iterable[str]:
    """Return the possible next operands of a verb. `before` contains the complete ones."""
    match verb:
        case "get" | "describe":
            return _targets(flags, before, incomplete)
        case "env":
            return _names("pods", flags)
        case "doctor" | "connections" | "graph":
            return _names("services", flags)
        case "help":
            return VERBS
        case _:
            operand = VERBS[verb].operand
            return operand.choices if operand else ()


def _targets(flags: Mapping[str, Any], before: Sequence[str], incomplete: str) -> Iterable[str]:
    """Return completions of KIND[,KIND...], of names after it, or of KIND/NAME."""
    from kproxy.show.kinds import CATEGORIES, KINDS, plurals_of

    kind, slash, _ = incomplete.partition("/")
    if slash:
        return [f"{kind}/{name}" for plural in plurals_of(kind, KINDS) for name in _names(plural, flags)]
    if before and "/" not in before[0]:
        return [name for plural in plurals_of(before[0], KINDS) for name in _names(plural, flags)]
    earlier = incomplete[: incomplete.rfind(",") + 1]
    return [earlier + word for word in (*KINDS, *CATEGORIES)]


def namespaces(flags: Mapping[str, Any]) -> Iterable[str]:
    """Return the namespaces of the running kproxy's Services."""
    return sorted({service.name.namespace for service in _objects(flags).services})


def _names(plural: str, flags: Mapping[str, Any]) -> Iterator[str]:
    """Return the names of the running kproxy's objects of a kind, in the namespace of the flags."""
    from kproxy.show.kinds import KINDS

    kind, namespace = KINDS[plural], flags.get("namespace") or "default"
    names = (kind.name(item) for item in kind.select(_objects(flags)))
    return (name.name for name in names if name.namespace == namespace or not kind.namespaced)


def _objects(flags: Mapping[str, Any]) -> Objects:
    from kproxy.control.client import fetch
    from kproxy.settings.settings import settings
    from kproxy.show.tables import objects

    state_dir = flags.get("state_dir") or settings({}, {}, "").state_dir
    return objects(fetch(Path(state_dir), TIMEOUT))
