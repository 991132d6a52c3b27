"""`kproxy dns`: serve or print the zone of the Services, or print the resolv.conf of a pod."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kproxy.cli.output import print_problems, write
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.dns.core.master import Content, zone_file
from kproxy.dns.core.names import name_of
from kproxy.dns.core.resolv import pod_resolv_conf
from kproxy.kernel.host import resolv_conf
from kproxy.settings.derived import required_cluster_dns
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints


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
    return 1 if snapshot.problems or (settings.strict and snapshot.input_warnings) else 0


def _resolv_conf(settings: Settings) -> int:
    host = resolv_conf(Path(settings.resolv_conf))
    servers = required_cluster_dns(settings)
    write(pod_resolv_conf(settings.namespace, settings.cluster_domain, servers, host.search))
    return 0


_COMMANDS: dict[str, Callable[[Settings], int]] = {
    "serve": _serve,
    "zone": _zone,
    "resolv-conf": _resolv_conf,
}
