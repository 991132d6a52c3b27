"""Every field of the Kubernetes API at the levels that kproxy reads, to notice fields that do not exist.

A misspelt field would otherwise be a field without effect. Fields that other versions of the API have or had
are included, because old manifests remain in use. Below a field without a type nothing is checked: kproxy
does not read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

from kproxy.decode.gatewayschema import GATEWAY_TYPES
from kproxy.decode.text import to_python
from kproxy.limits import UNKNOWN_FIELDS
from kproxy.problems import did_you_mean

TYPES = {
    "Service": "apiVersion kind metadata:ObjectMeta spec:ServiceSpec status:ServiceStatus",
    "ObjectMeta": (
        "annotations clusterName creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers "
        "generateName generation initializers labels managedFields name namespace "
        "ownerReferences:OwnerReference resourceVersion selfLink uid "
    ),
    "OwnerReference": "apiVersion blockOwnerDeletion controller kind name uid",
    "ServiceSpec": (
        "allocateLoadBalancerNodePorts clusterIP clusterIPs deprecatedPublicIPs externalIPs externalName "
        "externalTrafficPolicy healthCheckNodePort internalTrafficPolicy ipFamilies ipFamily ipFamilyPolicy "
        "loadBalancerClass loadBalancerIP loadBalancerSourceRanges portalIP ports:ServicePort publicIPs "
        "publishNotReadyAddresses selector sessionAffinity sessionAffinityConfig:SessionAffinityConfig "
        "topologyKeys trafficDistribution type "
    ),
    "ServicePort": "appProtocol name nodePort port protocol targetPort",
    "SessionAffinityConfig": "clientIP:ClientIPConfig",
    "ClientIPConfig": "timeoutSeconds",
    "ServiceStatus": "conditions loadBalancer:LoadBalancerStatus",
    "LoadBalancerStatus": "ingress:LoadBalancerIngress",
    "LoadBalancerIngress": "hostname ip ipMode ports:PortStatus",
    "PortStatus": "error port protocol",
    "Endpoints": "apiVersion kind metadata:ObjectMeta subsets:EndpointSubset",
    "EndpointSubset": "addresses:EndpointAddress notReadyAddresses:EndpointAddress ports:EndpointPort",
    "EndpointAddress": "hostname ip nodeName targetRef:ObjectReference",
    "EndpointPort": "appProtocol name port protocol",
    "ObjectReference": "apiVersion fieldPath kind name namespace resourceVersion uid",
    "EndpointSlice": "addressType apiVersion endpoints:Endpoint kind metadata:ObjectMeta ports:EndpointPort",
    "Endpoint": (
        "addresses conditions:EndpointConditions deprecatedTopology hints:EndpointHints hostname nodeName "
        "targetRef:ObjectReference zone "
    ),
    "EndpointConditions": "ready serving terminating",
    "EndpointHints": "forNodes:Hint forZones:Hint",
    "Hint": "name",
    "Node": "apiVersion kind metadata:ObjectMeta spec:NodeSpec status:NodeStatus",
    "NodeSpec": (
        "configSource doNotUseExternalID externalID podCIDR podCIDRs podPreemptionPolicy providerID "
        "taints:Taint unschedulable "
    ),
    "Taint": "effect key timeAdded value",
    "NodeStatus": (
        "addresses:NodeAddress allocatable capacity conditions:Condition config daemonEndpoints "
        "declaredFeatures features images nodeInfo:NodeSystemInfo phase runtimeHandlers volumesAttached "
        "volumesInUse "
    ),
    "NodeAddress": "address type",
    "Condition": (
        "lastHeartbeatTime lastProbeTime lastTransitionTime message observedGeneration reason status type "
    ),
    "NodeSystemInfo": (
        "architecture bootID containerRuntimeVersion kernelVersion kubeletVersion kubeProxyVersion "
        "machineID operatingSystem osImage runningInUserNamespace swap systemUUID "
    ),
    "Pod": "apiVersion kind metadata:ObjectMeta spec:PodSpec status:PodStatus",
    "PodSpec": (
        "activeDeadlineSeconds affinity automountServiceAccountToken containers:Container dnsConfig "
        "dnsPolicy enableServiceLinks ephemeralContainers evictionResponders hostAliases hostIPC hostname "
        "hostnameOverride hostNetwork hostPID hostUsers imagePullSecrets initContainers:Container nodeName "
        "nodeSelector os overhead preemptionPolicy priority priorityClassName "
        "readinessGates:PodReadinessGate resourceClaims resources restartPolicy runtimeClassName "
        "schedulerName schedulingGates schedulingGroup securityContext serviceAccount serviceAccountName "
        "setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations "
        "topologySpreadConstraints volumes workloadRef "
    ),
    "PodReadinessGate": "conditionType",
    "Container": (
        "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports:ContainerPort "
        "readinessProbe:Probe resizePolicy resources restartPolicy restartPolicyRules securityContext "
        "startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty volumeDevices "
        "volumeMounts workingDir "
    ),
    "ContainerPort": "containerPort hostIP hostPort name protocol",
    "Probe": (
        "exec:ExecAction failureThreshold grpc:GRPCAction httpGet:HTTPGetAction initialDelaySeconds "
        "periodSeconds successThreshold tcpSocket:TCPSocketAction terminationGracePeriodSeconds "
        "timeoutSeconds "
    ),
    "ExecAction": "command",
    "GRPCAction": "mode port service",
    "HTTPGetAction": "host httpHeaders:HTTPHeader path port protocol scheme",
    "HTTPHeader": "name value",
    "TCPSocketAction": "host port",
    "PodStatus": (
        "allocatedResources conditions:Condition containerStatuses:ContainerStatus "
        "ephemeralContainerStatuses extendedResourceClaimStatus hostIP hostIPs:IP initContainerStatuses "
        "message nodeAllocatableResourceClaimStatuses nominatedNodeName observedGeneration phase podIP "
        "podIPs:IP qosClass reason resize resourceClaimStatuses resources startTime volumeHealth "
    ),
    "ContainerStatus": (
        "allocatedResources allocatedResourcesStatus containerID image imageID lastState name ready "
        "resources restartCount started state stopSignal user volumeMounts "
    ),
    "IP": "ip",
    "Ingress": "apiVersion kind metadata:ObjectMeta spec:IngressSpec status:IngressStatus",
    "IngressSpec": "defaultBackend:IngressBackend ingressClassName rules:IngressRule tls:IngressTLS",
    "IngressRule": "host http:IngressHTTP",
    "IngressHTTP": "paths:IngressPath",
    "IngressPath": "backend:IngressBackend path pathType",
    "IngressBackend": "resource:TypedReference service:IngressService",
    "TypedReference": "apiGroup kind name",
    "IngressService": "name port:IngressServicePort",
    "IngressServicePort": "name number",
    "IngressTLS": "hosts secretName",
    "IngressStatus": "loadBalancer:LoadBalancerStatus",
    "IngressClass": "apiVersion kind metadata:ObjectMeta spec:IngressClassSpec",
    "IngressClassSpec": "controller parameters",
    "Secret": "apiVersion data immutable kind metadata:ObjectMeta stringData type",
    "IngressBeta": "apiVersion kind metadata:ObjectMeta spec:IngressSpecBeta status:IngressStatus",
    "IngressSpecBeta": "backend:IngressBackendBeta ingressClassName rules:IngressRuleBeta tls:IngressTLS",
    "IngressRuleBeta": "host http:IngressHTTPBeta",
    "IngressHTTPBeta": "paths:IngressPathBeta",
    "IngressPathBeta": "backend:IngressBackendBeta path pathType",
    "IngressBackendBeta": "resource:TypedReference serviceName servicePort",
    "Namespace": "apiVersion kind metadata:ObjectMeta spec status",
    **GATEWAY_TYPES,
}
"""By type: its fields, each with the type of its value, or of the items of its list."""


@cache
def all_fields() -> frozenset[str]:
    """Return the fields of all types."""
    return frozenset(field for name in TYPES for field in fields(name))


@cache
def fields(name: str) -> dict[str, str]:
    """Return the fields of a type, each with its type, "" for a value that is not checked."""
    pairs = (word.partition(":") for word in TYPES[name].split())
    return {field: type_ for field, _, type_ in pairs}


def unknown_fields(name: str, content: Any) -> Iterator[tuple[str, str]]:
    """Yield path and message of each unknown field of an object of a type: JSON text, or a loaded value."""
    for path, field, owner in islice(_unknown(name, to_python(content), ""), UNKNOWN_FIELDS):
        advice = _advice(name, field, owner)
        yield f"{path}{field}", f"unknown field.{advice}" if advice else "unknown field"


def _unknown(name: str, content: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield the path of the object that has an unknown field, the field, and the object's type."""
    if isinstance(content, list):
        for index, item in enumerate(content):
            yield from _unknown(name, item, f"{path.removesuffix('.')}[{index}].")
    elif isinstance(content, dict):
        known = fields(name)
        for field, value in content.items():
            if field not in known:
                yield path, field, name
            elif type_ := known[field]:
                yield from _unknown(type_, value, f"{path}{field}.")


def _advice(name: str, field: str, owner: str) -> str:
    """Name the most similar field of this type, else a field of the same name that is elsewhere."""
    return did_you_mean(field, fields(owner)) or _elsewhere(name, field)


def _elsewhere(name: str, field: str) -> str:
    places = [path for path in _paths(name, "") if path.rpartition(".")[2] == field]
    return f" Did you mean {min(places, key=len)}?" if places else ""


def _paths(name: str, prefix: str) -> Iterator[str]:
    for field, type_ in fields(name).items():
        yield f"{prefix}{field}"
        if type_:
            yield from _paths(type_, f"{prefix}{field}.")
