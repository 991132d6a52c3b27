"""Ingresses: decoding of all API versions, problems of invalid ones, and the output of get and describe."""

# ruff: noqa: E501  (a row of a table is a line)

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kproxy.cli import main
from kproxy.model import Ingress, IngressBackend, IngressPath, IngressRule, IngressTLS
from tests.unit.make import decoded, manifest, name, service

V1, OLD, OLDEST = "networking.k8s.io/v1", "networking.k8s.io/v1beta1", "extensions/v1beta1"


def ingress(version: str = V1, own: str = "kubia", **rest: Any) -> dict[str, Any]:
    status, metadata = rest.pop("status", {}), rest.pop("metadata", {})
    return {
        "apiVersion": version,
        "kind": "Ingress",
        "metadata": {"name": own, **metadata},
        "spec": rest,
        "status": status,
    }


def to(service: str, port: int | str) -> dict[str, Any]:
    """A backend, as it is written today."""
    return {"service": {"name": service, "port": {"number" if isinstance(port, int) else "name": port}}}


def rule(host: str, *paths: dict[str, Any]) -> dict[str, Any]:
    return {"host": host, "http": {"paths": list(paths)}}


def path(text: str, backend: dict[str, Any], kind: str | None = "Prefix") -> dict[str, Any]:
    return {"path": text, "pathType": kind, "backend": backend}


def first(*objects: dict[str, Any]) -> Ingress:
    result = decoded(yaml.safe_dump_all(objects))
    assert (result.problems, result.unreadable.everything) == ([], [])
    return result.state.ingresses[0]


CHAPTER = """
apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: kubia
spec:
  tls:
  - hosts:
    - kubia.example.com
    secretName: tls-secret
  rules:
  - host: kubia.example.com
    http:
      paths:
      - path: /kubia
        backend:
          serviceName: kubia-nodeport
          servicePort: 80
      - path: /foo
        backend:
          serviceName: bar
          servicePort: http
"""


@pytest.mark.parametrize("version", [OLD, OLDEST])
def test_an_ingress_v1beta1(version: str) -> None:
    (found,) = decoded(CHAPTER.replace(OLDEST, version)).state.ingresses
    specific = "ImplementationSpecific"
    assert (found.name, found.class_name, found.default_backend) == (name("kubia"), "", None)
    assert found.tls == (IngressTLS(("kubia.example.com",), "tls-secret"),)
    assert found.rules == (
        IngressRule(
            "kubia.example.com",
            (
                IngressPath("/kubia", specific, IngressBackend("kubia-nodeport", 80)),
                IngressPath("/foo", specific, IngressBackend("bar", "http")),
            ),
        ),
    )


def test_an_ingress_v1() -> None:
    found = first(
        ingress(
            metadata={"labels": {"a": "1"}, "creationTimestamp": "2020-07-20T23:30:33Z"},
            ingressClassName="nginx",
            defaultBackend=to("web", 80),
            rules=[
                rule("", path("/", to("web", "http"), "Exact")),
                {"host": "*.example.com"},
                rule("x.org", path("", {"resource": {"apiGroup": "k.example.com", "kind": "Bucket", "name": "b"}}, "ImplementationSpecific")),
            ],
            status={"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.example.com"}]}},
        )
    )  # fmt: skip
    assert found.class_name == "nginx"
    assert found.default_backend == IngressBackend("web", 80)
    assert found.addresses == ("192.0.2.1", "lb.example.com")
    assert (found.labels, found.origin.created) == ({"a": "1"}, "2020-07-20T23:30:33Z")
    assert [r.host for r in found.rules] == ["", "*.example.com", "x.org"]
    assert found.rules[0].paths[0] == IngressPath("/", "Exact", IngressBackend("web", "http"))
    assert found.rules[1].paths == ()
    assert found.rules[2].paths[0].backend == IngressBackend("", 0, "Bucket/b", "k.example.com")


def test_the_class_of_an_ingress_v1beta1_is_an_annotation() -> None:
    old = ingress(
        OLD,
        metadata={"annotations": {"kubernetes.io/ingress.class": "gce"}},
        backend={"serviceName": "web", "servicePort": 80},
    )
    assert (first(old).class_name, first(old).default_backend) == ("gce", IngressBackend("web", 80))


WEB = to("web", 80)


@pytest.mark.parametrize(
    ("obj", "field", "message"),
    [
        (ingress(), "spec.rules", "is missing: either spec.rules or spec.defaultBackend is required"),
        (ingress(OLDEST), "spec.rules", "is missing: either spec.rules or spec.backend is required"),
        (ingress(rules=[rule("x.org", path("/", WEB, None))]), "spec.rules[0].http.paths[0].pathType", "is missing"),
        (ingress(rules=[rule("x.org", path("/", WEB, "Regex"))]), "spec.rules[0].http.paths[0].pathType", "'Regex' is not one of Exact, Prefix, ImplementationSpecific"),
        (ingress(rules=[rule("x.org", path("a", WEB))]), "spec.rules[0].http.paths[0].path", "'a' must begin with /"),
        (ingress(rules=[rule("x.org", path("", WEB))]), "spec.rules[0].http.paths[0].path", "'' must begin with /"),
        (ingress(rules=[rule("x.org", path("/a/../b", WEB))]), "spec.rules[0].http.paths[0].path", "'/a/../b' must not contain '/../'"),
        (ingress(rules=[rule("x.org", path("/a%2Fb", WEB, "Exact"))]), "spec.rules[0].http.paths[0].path", "'/a%2Fb' must not contain '%2F'"),
        (ingress(rules=[{"http": {}}]), "spec.rules[0].http.paths", "is missing"),
        (ingress(rules=[rule("192.0.2.1", path("/", WEB))]), "spec.rules[0].host", "192.0.2.1 is an IP address: must be a DNS name"),
        (ingress(rules=[rule("a.*.org", path("/", WEB))]), "spec.rules[0].host", "'a.*.org' is not a host name: at most 253 lower-case letters, digits, - and ., with a letter or digit first and last"),
        (ingress(rules=[rule("*", path("/", WEB))]), "spec.rules[0].host", "'*' is not a host name: at most 253 lower-case letters, digits, - and ., with a letter or digit first and last"),
        (ingress(rules=[rule("x.org", {"path": "/", "pathType": "Prefix"})]), "spec.rules[0].http.paths[0].backend", "is missing"),
        (ingress(defaultBackend={}), "spec.defaultBackend", "must have exactly one of service, resource"),
        (ingress(defaultBackend={"service": {"port": {"number": 80}}}), "spec.defaultBackend.service.name", "is missing"),
        (ingress(defaultBackend={"service": {"name": "web"}}), "spec.defaultBackend.service.port", "must have exactly one of name, number"),
        (ingress(defaultBackend={"service": {"name": "web", "port": {"name": "a", "number": 1}}}), "spec.defaultBackend.service.port", "must have exactly one of name, number"),
        (ingress(defaultBackend=to("web", 0)), "spec.defaultBackend.service.port.number", "0 is not a port (1-65535)"),
        (ingress(defaultBackend=to("web", "80")), "spec.defaultBackend.service.port.name", "'80' is neither a port number nor a valid port name"),
        (ingress(defaultBackend=to("w" * 254, 80)), "spec.defaultBackend.service.name", f"'{'w' * 254}' is not a valid Service name"),
        (ingress(defaultBackend=to("Web", 80)), "spec.defaultBackend.service.name", "'Web' is not a valid Service name"),
        (ingress(defaultBackend={"resource": {"kind": "Bucket"}}), "spec.defaultBackend.resource.name", "is missing"),
        (ingress(OLD, backend={"servicePort": 80}), "spec.backend.serviceName", "is missing"),
        (ingress(OLD, backend={"serviceName": "web"}), "spec.backend.servicePort", "is missing"),
        (ingress(defaultBackend=WEB, tls=[{"hosts": ["192.0.2.1"]}]), "spec.tls[0].hosts[0]", "192.0.2.1 is an IP address: must be a DNS name"),
        (ingress(rules=80), "spec.rules", "expected a list, got 80"),
        (ingress(own="Kubia", defaultBackend=WEB), "metadata.name", "'Kubia' is not a DNS name: at most 253 lower-case letters, digits, - and ., with a letter or digit first and last"),
    ],
)  # fmt: skip
def test_an_invalid_ingress_protects_no_service(obj: dict[str, Any], field: str, message: str) -> None:
    result = decoded(yaml.safe_dump(obj))
    own = f"Ingress default/{obj['metadata']['name']}"
    assert result.problems == [("in.yaml", own, field, message)]
    assert result.state.ingresses == ()
    assert not result.unreadable.covers(name("web"))


# --- commands ---


@pytest.fixture(name="shown")
def _shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def shown(command: str, *objects: dict[str, Any]) -> tuple[int, str, str]:
        (tmp_path / "in.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        flags = [
            "-f",
            str(tmp_path / "in.json"),
            "--state-dir",
            str(tmp_path / "state"),
            "--node-ip",
            "192.0.2.1",
        ]
        status = main([*command.split(), *flags])
        out, err = capsys.readouterr()
        return status, out, err

    return shown


RULES = [rule(f"{letter}.org", path("/", WEB)) for letter in "abcde"]
AT = {"loadBalancer": {"ingress": [{"ip": "203.0.113.10"}, {"hostname": "lb.example.net"}]}}


@pytest.mark.parametrize(
    ("obj", "flags", "row"),
    [
        (yaml.safe_load(CHAPTER), "", "kubia <none> kubia.example.com 80, 443 <unknown>"),
        (ingress(rules=RULES[:1], ingressClassName="nginx"), "", "kubia nginx a.org 80 <unknown>"),
        (ingress(rules=RULES), "", "kubia <none> a.org,b.org,c.org + 2 more... 80 <unknown>"),
        (ingress(defaultBackend=WEB), "", "kubia <none> * 80 <unknown>"),
        (ingress(defaultBackend=WEB, status=AT), "", "kubia <none> * 203.0.113.10,... 80 <unknown>"),
        (ingress(defaultBackend=WEB, status=AT), "-o wide", "kubia <none> * 203.0.113.10,lb.example.net 80 <unknown>"),
        (ingress(defaultBackend=WEB, metadata={"labels": {"a": "1"}}), "--show-labels", "kubia <none> * 80 <unknown> a=1"),
    ],
)  # fmt: skip
def test_get(shown: Any, obj: dict[str, Any], flags: str, row: str) -> None:
    status, out, err = shown(f"get ing {flags}", obj)
    assert (status, err) == (0, "")
    heading = "NAME CLASS HOSTS ADDRESS PORTS AGE" + (" LABELS" if "labels" in flags else "")
    assert [line.split() for line in out.splitlines()] == [heading.split(), row.split()]


DESCRIPTION = """
Name:             kubia
Namespace:        default
Labels:           <none>
Address:
Ingress Class:    <none>
Default backend:  <default>
TLS:
  tls-secret terminates kubia.example.com
Rules:
  Host               Path    Backends
  ----               ----    --------
  kubia.example.com
                     /kubia  kubia-nodeport:80 (10.0.1.23:8080)
                     /foo    bar:http (<error: services "bar" not found>)
Annotations:  <none>
Problems:
  kubia.example.com/foo: Service default/bar not found
"""
POD = manifest("Pod", "a", metadata={"labels": {"app": "kubia"}}, status={"podIP": "10.0.1.23"})
NODE_PORT = service("kubia-nodeport", selector={"app": "kubia"}, ports=[{"port": 80, "targetPort": 8080}])


def test_describe(shown: Any) -> None:
    objects = [yaml.safe_load(CHAPTER), NODE_PORT, POD]
    assert shown("describe ingress kubia", *objects) == (0, DESCRIPTION.lstrip("\n"), "")


@pytest.mark.parametrize(
    ("backend", "shown_as", "problem"),
    [
        (to("kubia-nodeport", 80), "kubia-nodeport:80 (10.0.1.23:8080)", "<none>"),
        (to("kubia-nodeport", 81), "kubia-nodeport:81 ()", "default backend: Service default/kubia-nodeport has no port 81 (ports: 80)"),
        ({"resource": {"kind": "Bucket", "name": "b"}}, "Bucket/b", "default backend: Bucket/b is not a Service"),
    ],
)  # fmt: skip
def test_describe_a_default_backend(shown: Any, backend: dict[str, Any], shown_as: str, problem: str) -> None:
    out = shown("describe ing", ingress(defaultBackend=backend), NODE_PORT, POD)[1]
    assert f"Default backend:  {shown_as}\n" in out
    assert out.endswith(f"Rules:\n  <none>\nAnnotations:  <none>\nProblems:\n  {problem}\n")


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_printed_manifests_decode_to_the_same_ingresses(shown: Any, form: str) -> None:
    every = [
        yaml.safe_load(CHAPTER),
        ingress(own="a", defaultBackend=WEB, status=AT, ingressClassName="x", metadata={"labels": {"a": "1"}}),
        ingress(own="b", rules=[{"host": "*.org"}, rule("", path("", {"resource": {"apiGroup": "g", "kind": "K", "name": "n"}}, "ImplementationSpecific"))]),
    ]  # fmt: skip
    before = decoded(yaml.safe_dump_all(every)).state.ingresses
    again = decoded(shown(f"get ingresses -o {form}", *every)[1])
    assert again.problems == []
    assert {i.name: i for i in again.state.ingresses} == {i.name: i for i in before}
