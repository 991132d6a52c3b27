"""The fields of the Gateway API at the levels that kproxy reads, as in its CRDs, in the form of schema.py."""

GATEWAY_TYPES = {
    "GatewayClass": "apiVersion kind metadata:ObjectMeta spec:GatewayClassSpec status",
    "GatewayClassSpec": "controllerName description parametersRef:ParametersRef",
    "ParametersRef": "group kind name namespace",
    "Gateway": "apiVersion kind metadata:ObjectMeta spec:GatewaySpec status",
    "GatewaySpec": (
        "addresses:GatewayAddress allowedListeners backendTLS defaultScope gatewayClassName infrastructure "
        "listeners:Listener tls "
    ),
    "GatewayAddress": "type value",
    "Listener": "allowedRoutes:AllowedRoutes hostname name port protocol tls:ListenerTLS",
    "ListenerTLS": "certificateRefs:SecretReference frontendValidation mode options",
    "SecretReference": "group kind name namespace",
    "AllowedRoutes": "kinds:RouteGroupKind namespaces:RouteNamespaces",
    "RouteGroupKind": "group kind",
    "RouteNamespaces": "from selector:LabelSelector",
    "LabelSelector": "matchExpressions:LabelSelectorRequirement matchLabels",
    "LabelSelectorRequirement": "key operator values",
    "TCPRoute": "apiVersion kind metadata:ObjectMeta spec:L4RouteSpec status",
    "UDPRoute": "apiVersion kind metadata:ObjectMeta spec:L4RouteSpec status",
    "L4RouteSpec": "parentRefs:ParentReference rules:L4Rule useDefaultGateways",
    "ParentReference": "group kind name namespace port sectionName",
    "L4Rule": "backendRefs:BackendReference name",
    "BackendReference": "group kind name namespace port weight",
    "HTTPRoute": "apiVersion kind metadata:ObjectMeta spec:HTTPRouteSpec status",
    "HTTPRouteSpec": "hostnames parentRefs:ParentReference rules:HTTPRule useDefaultGateways",
    "HTTPRule": (
        "backendRefs:HTTPBackendReference filters:HTTPRouteFilter matches:HTTPRouteMatch name retry "
        "sessionPersistence timeouts:HTTPTimeouts "
    ),
    "HTTPBackendReference": "filters:HTTPRouteFilter group kind name namespace port weight",
    "HTTPRouteMatch": ("headers:HTTPValueMatch method path:HTTPPathMatch queryParams:HTTPValueMatch "),
    "HTTPPathMatch": "type value",
    "HTTPValueMatch": "name type value",
    "HTTPRouteFilter": (
        "cors extensionRef externalAuth requestHeaderModifier:HTTPHeaderFilter requestMirror "
        "requestRedirect:HTTPRequestRedirect responseHeaderModifier:HTTPHeaderFilter type "
        "urlRewrite:HTTPURLRewrite "
    ),
    "HTTPHeaderFilter": "add:HTTPHeaderValue remove set:HTTPHeaderValue",
    "HTTPHeaderValue": "name value",
    "HTTPRequestRedirect": "hostname path:HTTPPathModifier port scheme statusCode",
    "HTTPURLRewrite": "hostname path:HTTPPathModifier",
    "HTTPPathModifier": "replaceFullPath replacePrefixMatch type",
    "HTTPTimeouts": "backendRequest request",
    "ReferenceGrant": "apiVersion kind metadata:ObjectMeta spec:ReferenceGrantSpec",
    "ReferenceGrantSpec": "from:ReferenceGrantFrom to:ReferenceGrantTo",
    "ReferenceGrantFrom": "group kind namespace",
    "ReferenceGrantTo": "group kind name",
}
