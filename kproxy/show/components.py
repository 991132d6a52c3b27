"""The parts of a running kproxy, as `kubectl get componentstatuses` shows those of a control plane. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from kproxy.model import NamespacedName

KIND = "ComponentStatus"


class Component(NamedTuple):
    """A part of a running kproxy: a table of the kernel, or a server."""

    name: str
    message: str
    """Where it is, for example the addresses of a server."""
    errors: tuple[str, ...] = ()
    """Why it is unhealthy."""


def component_name(component: Component) -> NamespacedName:
    """Return the name. Components have no namespace."""
    return NamespacedName("", component.name)


def component_rows(components: Iterable[Component], age: object, wide: bool) -> list[list[str]]:
    """Return the headings, and a row for each component."""
    rows = [["NAME", "STATUS", "MESSAGE", "ERROR"]]
    rows += (
        [each.name, "Unhealthy" if each.errors else "Healthy", each.message, "; ".join(each.errors)]
        for each in components
    )
    return rows


def component_manifest(component: Component) -> dict[str, Any]:
    """Return a v1 ComponentStatus."""
    condition = {
        "type": "Healthy",
        "status": "False" if component.errors else "True",
        "message": component.message,
        **({"error": "; ".join(component.errors)} if component.errors else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": KIND,
        "metadata": {"name": component.name},
        "conditions": [condition],
    }
