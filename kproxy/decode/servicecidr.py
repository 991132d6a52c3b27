"""ServiceCIDR v1 -> model. Only clusters have such objects. In manifests they are ignored."""

from __future__ import annotations

from kproxy.decode import wire
from kproxy.decode.fields import Notes, network, object_name, usable
from kproxy.model import ServiceCIDR


def service_cidr(_: str, obj: wire.ServiceCIDR, notes: Notes) -> list[ServiceCIDR]:
    """Decode a ServiceCIDR v1. Its addresses are ClusterIPs until it is deleted, whatever its conditions."""
    spec = obj.spec or wire.ServiceCIDRSpec()
    texts = [(f"spec.cidrs[{index}]", text) for index, text in enumerate(spec.cidrs or ())]
    return [ServiceCIDR(object_name(obj.metadata).name, tuple(usable(network, texts, notes)))]
