"""What the objects of the Gateway API in manifests mean for Services.

The modules that compute this are imported only if there are such objects.
"""

from __future__ import annotations

from collections.abc import Mapping

from kproxy.controlplane.hold import InUse
from kproxy.gatewayapi import GatewayObjects
from kproxy.model import NamespacedName, Secret, Service
from kproxy.problems import Problem


def with_certificates(objects: GatewayObjects, secrets: Mapping[NamespacedName, Secret]) -> GatewayObjects:
    """Return the objects with what there is to say about the certificates of their listeners."""
    if not objects.gateways:
        return objects
    from kproxy.gateway.core import httproute

    return httproute.with_certificates(objects, secrets)


def with_gateways(in_use: InUse, objects: GatewayObjects) -> InUse:
    """Return what is in use, with the ports and slices of Gateways."""
    if not objects.gateways:
        return in_use
    from kproxy.gateway.core import l4

    return l4.with_gateways(in_use, objects)


def findings(objects: GatewayObjects, services: Mapping[NamespacedName, Service]) -> list[Problem]:
    """Return the warnings about the objects. `services` contain those of Gateways."""
    if not objects.gateways and not any(objects.routes.values()):
        return []
    from kproxy.gateway.core.findings import findings as found

    return found(objects, services)
