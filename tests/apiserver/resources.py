"""The supported resources, and the meaning of paths."""

from __future__ import annotations

from typing import Any, NamedTuple

Manifest = dict[str, Any]


class Resource(NamedTuple):
    """A resource type."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def prefix(self) -> str:
        """The path of the API group, above its resources."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def qualified(self) -> str:
        """The name in messages."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def details(self) -> Manifest:
        """The name in the details of a Status."""
        return {"group": self.group, "kind": self.plural} if self.group else {"kind": self.plural}

    def key(self, manifest: Manifest) -> str:
        """Return the key of an object in etcd: `namespace/name`, or `name`."""
        metadata = manifest["metadata"]
        return self.key_of(metadata.get("namespace", "default"), metadata["name"])

    def key_of(self, namespace: str, name: str) -> str:
        return f"{namespace}/{name}" if self.namespaced else name


GATEWAY = "gateway.networking.k8s.io"
RESOURCES = (
    Resource("", "v1", "services", "Service"),
    Resource("", "v1", "endpoints", "Endpoints"),
    Resource("", "v1", "pods", "Pod"),
    Resource("", "v1", "nodes", "Node", namespaced=False),
    Resource("", "v1", "namespaces", "Namespace", namespaced=False),
    Resource("", "v1", "configmaps", "ConfigMap"),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    Resource("networking.k8s.io", "v1", "ingresses", "Ingress"),
    Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", namespaced=False),
    Resource(GATEWAY, "v1", "gatewayclasses", "GatewayClass", namespaced=False),
    Resource(GATEWAY, "v1", "gateways", "Gateway"),
    Resource(GATEWAY, "v1", "tcproutes", "TCPRoute"),
    Resource(GATEWAY, "v1alpha2", "udproutes", "UDPRoute"),
    Resource(GATEWAY, "v1beta1", "referencegrants", "ReferenceGrant"),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
)
BY_KIND = {resource.kind: resource for resource in RESOURCES}
HAVE_STATUS = {
    *("Service", "Pod", "Node", "Namespace", "Ingress", "ServiceCIDR"),
    *("GatewayClass", "Gateway", "TCPRoute", "UDPRoute"),
}
MADE_BY_UPDATE = {"Service", "Endpoints"}
"""Kinds that an update creates if the object does not exist."""
SHOWN_WHEN_DELETED = {"Service", "Pod", "Namespace"}
"""A deletion of these kinds is answered with the object; of other kinds, with a Status."""
FIELDS = {
    "Service": {"spec.clusterIP", "spec.type"},
    "Pod": {"spec.nodeName", "status.phase", "status.podIP"},
    "Node": {"spec.unschedulable"},
    "Namespace": {"status.phase"},
}
"""The selectable fields, in addition to metadata.name and metadata.namespace."""

_NODE_INFO = (
    *("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion"),
    *("kubeletVersion", "machineID", "operatingSystem", "osImage", "systemUUID"),
)
EMPTY: dict[str, Manifest] = {
    "Service": {"spec": {}, "status": {"loadBalancer": {}}},
    "Pod": {"spec": {"containers": None}, "status": {}},
    "Node": {
        "spec": {},
        "status": {
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
            "nodeInfo": dict.fromkeys(_NODE_INFO, ""),
        },
    },
    "Namespace": {"spec": {}, "status": {}},
    "EndpointSlice": {"addressType": "", "endpoints": None, "ports": None},
    "Ingress": {"spec": {}, "status": {"loadBalancer": {}}},
    "ServiceCIDR": {"spec": {}, "status": {}},
}
"""The fields of an empty object of a kind: Go's API types always encode them."""


class Target(NamedTuple):
    """The target of a path: a collection without `name`, in all namespaces without `namespace`."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> str:
        return self.resource.key_of(self.namespace, self.name)


def target_of(path: str) -> Target | None:
    """Return the target of a path, None if the path is not supported."""
    for resource in RESOURCES:
        if not path.startswith(resource.prefix + "/"):
            continue
        parts = path[len(resource.prefix) + 1 :].split("/")
        namespace = ""
        if resource.namespaced and parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        if parts[0] != resource.plural or len(parts) > 3 or "" in parts:
            continue
        if resource.namespaced and not namespace and len(parts) > 1:
            continue
        return Target(resource, namespace, *parts[1:])
    return None


def discovery(path: str) -> Manifest | None:
    """Return the discovery document at this path, if there is one."""
    groups = sorted({resource.group for resource in RESOURCES} - {""})
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        entries = []
        for group in groups:
            version = {"groupVersion": f"{group}/v1", "version": "v1"}
            entries.append({"name": group, "versions": [version], "preferredVersion": version})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": entries}
    found = [resource for resource in RESOURCES if resource.prefix == path]
    if not found:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": found[0].api_version,
        "resources": [
            {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": verbs,
            }
            for resource in found
        ],
    }
