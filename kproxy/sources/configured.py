"""The sources that the settings name. The client of container engines is imported only if there are any."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from kproxy.settings.derived import ranges
from kproxy.settings.settings import Settings
from kproxy.sources.manifests import Manifests
from kproxy.sources.node import find_node
from kproxy.state.store import Store

if TYPE_CHECKING:
    from kproxy.probes.prober import Runner
    from kproxy.sources.engines.engine import Engine


def engines_of(settings: Settings) -> Sequence[Engine]:
    """Return the engines of --pods-from."""
    if not settings.pods_from:
        return ()
    from kproxy.sources.engines.core.pods import Choice
    from kproxy.sources.engines.engine import Engine

    return [
        Engine(Choice(engine, settings.node_name, settings.pod_network), socket)
        for engine, socket in settings.pods_from
    ]


def runner_of(engines: Sequence[Engine], otherwise: Runner) -> Runner:
    """Return what runs the commands of exec probes: for containers of the engines, the engine."""
    if not engines:
        return otherwise
    from kproxy.sources.engines.exec import EngineRunner

    return EngineRunner(engines, otherwise)


def manifests_of(settings: Settings, store: Store) -> Manifests:
    """Return the manifests of --filename, with the containers of --pods-from. They are not read yet."""
    return Manifests(
        settings.manifests,
        store,
        ranges(settings),
        partial(find_node, settings),
        settings.recursive,
        engines=engines_of(settings),
    )
