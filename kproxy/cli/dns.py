"""`kproxy dns`: serve or print the zone of the Services; resolvers of pods, and of this host."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kproxy.cli.output import print_problems, write
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.dns.connect import apply, running, undo
from kproxy.dns.core.connect import RESOLVERS, Resolver, Target, in_use, target
from kproxy.dns.core.master import Content, zone_file
from kproxy.dns.core.names import name_of
from kproxy.dns.core.resolv import pod_resolv_conf
from kproxy.kernel.host import require_root, resolv_conf
from kproxy.model import format_address
from kproxy.problems import UsageError
from kproxy.settings.derived import required_cluster_dns, service_ranges
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints, is_incomplete


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    return _COMMANDS[operands[0]](settings)


def _serve(settings: Settings) -> int:
    from kproxy.daemon.dns import serve_names

    return serve_names(settings)


def _zone(settings: Settings) -> int:
    with progress() as activity:
        snapshot = look_up(settings, activity)
    domain, inventory = name_of(settings.cluster_domain), snapshot.inventory
    origin = name_of(settings.zone) if settings.zone else domain
    assert domain is not None
    assert origin is not None
    content = Content(inventory.services, inventory.slices, inventory.pods)
    print_problems(complaints(snapshot))
    write(zone_file(content, domain, required_cluster_dns(settings), origin, int(time.time())))
    return 1 if is_incomplete(snapshot, settings.strict) else 0


def _resolv_conf(settings: Settings) -> int:
    host = resolv_conf(Path(settings.resolv_conf))
    servers = required_cluster_dns(settings)
    write(pod_resolv_conf(settings.namespace, settings.cluster_domain, servers, host.search))
    return 0


def _connect(settings: Settings) -> int:
    if settings.apply and settings.undo:
        raise UsageError("--apply and --undo exclude each other.")
    if settings.undo:
        return _undo(settings)
    zones = target(settings.cluster_domain, required_cluster_dns(settings), service_ranges(settings))
    resolver, reason = _resolver(settings)
    if settings.apply:
        return _apply(resolver, reason, zones)
    files = (
        f"\n# {each.path}\n{each.content(zones)}\n# {' '.join(each.command)}\n"
        for each in ([resolver] if resolver else RESOLVERS)
    )
    write(f"# {reason}\n{''.join(files)}")
    return 0


def _apply(resolver: Resolver | None, reason: str, zones: Target) -> int:
    require_root(_PURPOSE)
    if resolver is None:
        raise UsageError(reason, "Name it with --resolver.")
    apply(resolver, resolver.content(zones))
    write(f"wrote {resolver.path}\nran {' '.join(resolver.command)}\n")
    return 0


def _undo(settings: Settings) -> int:
    require_root(_PURPOSE)
    done = undo([each for each in RESOLVERS if settings.resolver in ("", each.name)])
    lines = (f"removed {each.path}\nran {' '.join(each.command)}\n" for each in done)
    write("".join(lines) or "nothing to remove\n")
    return 0


def _resolver(settings: Settings) -> tuple[Resolver | None, str]:
    """Return the resolver to connect, or None if it is not known, and how this was decided."""
    if settings.resolver:
        found = next(each for each in RESOLVERS if each.name == settings.resolver)
        return found, f"--resolver {found.name}"
    servers, active = resolv_conf(Path(settings.resolv_conf)).servers, running()
    named = f"{settings.resolv_conf} names {', '.join(map(format_address, servers)) or 'no server'}"
    if resolver := in_use(servers, active):
        return resolver, f"This host uses {resolver.name}: {named}."
    names = ", ".join(each.name for each in active) or "none of those that kproxy knows"
    return None, f"It is not known which resolver this host uses: {named}. Running: {names}."


_PURPOSE = "change the configuration of this host's resolver"


_COMMANDS: dict[str, Callable[[Settings], int]] = {
    "serve": _serve,
    "zone": _zone,
    "resolv-conf": _resolv_conf,
    "connect": _connect,
}
