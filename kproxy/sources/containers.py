"""The container engines that the settings name. The client is imported only if there are any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kproxy.problems import HostError
from kproxy.settings.settings import Settings

if TYPE_CHECKING:
    from kproxy.sources.engines.engine import Engine


def engines_of(settings: Settings) -> Sequence[Engine]:
    """Return the engines of --pods-from. Raises HostError if the Python package for them is missing."""
    if not settings.pods_from:
        return ()
    try:
        from kproxy.sources.engines.core.pods import Choice
        from kproxy.sources.engines.engine import Engine
    except ModuleNotFoundError as error:
        message = f"--pods-from requires the Python package {error.name}."
        hint = "Install kproxy from its source folder with the extra cluster: pip install '.[cluster]'"
        raise HostError(message, hint) from None
    return [
        Engine(Choice(engine, settings.node_name, settings.pod_network), socket)
        for engine, socket in settings.pods_from
    ]
