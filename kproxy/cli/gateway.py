"""`kproxy gateway`: HAProxy's configuration for Ingresses, their routes, and certificates for tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kproxy.cli.output import note, print_problems, print_warnings, write_text
from kproxy.cli.progress import progress
from kproxy.gateway.core.ingress import Ports
from kproxy.gateway.core.views import HEADINGS, listing, route_rows
from kproxy.gateway.renderer import Renderer, Rendering, objects_of
from kproxy.problems import UsageError, ignored_sentence
from kproxy.settings.settings import Settings
from kproxy.show.tables import table
from kproxy.sources.configured import manifests_of
from kproxy.state.store import ReadOnlyStore


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    return _COMMANDS[operands[0]](settings)


def _render(settings: Settings) -> int:
    return _show(settings, lambda found: listing(found.configuration))


def _routes(settings: Settings) -> int:
    return _show(settings, lambda found: table([HEADINGS, *route_rows(found.routing)]))


def _show(settings: Settings, text: Callable[[Rendering], str]) -> int:
    if not settings.manifests:
        raise UsageError("kproxy gateway render and routes need -f with files or folders.")
    source = manifests_of(settings, ReadOnlyStore(Path(settings.state_dir)))
    with progress() as activity:
        source.load(activity, allow_empty=True)
        objects = source.routed()
        activity.begin(f"rendering {len(objects.ingresses)} ingresses")
        found = Renderer(Ports(*settings.gateway_ports)).render(objects_of(objects), time.time())
    problems, warnings = source.problems() + found.problems, source.input_warnings() + found.warnings
    print_problems(problems)
    print_warnings(warnings)
    if ignored := source.ignored():
        note(ignored_sentence(ignored))
    write_text(text(found))
    return 1 if problems or (settings.strict and warnings) else 0


def _cert(settings: Settings) -> int:
    from kproxy.gateway.certificates import self_signed
    from kproxy.gateway.core.secret import secret_manifest

    if not settings.host:
        raise UsageError("kproxy gateway cert needs the host of the certificate: --host HOST[,HOST].")
    write_text(secret_manifest(settings.namespace, settings.host, *self_signed(settings.host)))
    return 0


_COMMANDS: dict[str, Callable[[Settings], int]] = {"render": _render, "routes": _routes, "cert": _cert}
