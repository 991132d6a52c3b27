"""The sentences that commands print on standard error: problems, notes, and why objects are held. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from kproxy.model import NamespacedName, is_gateway, owner_text
from kproxy.show.snapshot import Snapshot

NAMED = 3
"""The maximum number of services that a sentence names."""


def is_incomplete(snapshot: Snapshot, strict: bool) -> bool:
    """Whether a part of the input was left out; with `strict`, also whether there are warnings about it."""
    return bool(snapshot.problems or (strict and snapshot.input_warnings))


def complaints(snapshot: Snapshot, described: Collection[str] = (), notes: bool = True) -> Iterator[str]:
    """Return the sentences, except those in the descriptions of `described` (`Service default/web`).

    Without `notes`, what is missing in the input is left out.
    """
    yield from (str(problem) for problem in snapshot.problems if problem.object not in described)
    yield from (f"warning: {each}" for each in snapshot.input_warnings if each.object not in described)
    held = snapshot.inventory.held.items()
    yield from snapshot.notes if notes else ()
    yield from held_sentences({name: why for name, why in held if not _is_described(name, described)})


def _is_described(service: NamespacedName, described: Collection[str]) -> bool:
    return any(f"{kind} {service}" in described for kind in ("Service", "Endpoints"))


def held_sentences(held: Mapping[NamespacedName, str]) -> Iterator[str]:
    """Return a sentence for each reason: `held: web.yaml cannot be read (Service default/a, default/b)`."""
    services: dict[str, list[NamespacedName]] = defaultdict(list)
    for name, reason in sorted(held.items()):
        services[reason].append(name)
    for reason, names in services.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        kind = "Service " if not is_gateway(names[0]) else ""
        named = (str(name) if kind and not is_gateway(name) else owner_text(name) for name in names[:NAMED])
        yield f"held: {reason} ({kind}{', '.join(named)}{more})"
