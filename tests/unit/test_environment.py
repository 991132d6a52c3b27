"""The environment variables of a pod, and the command that prints them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from kproxy.cli import main
from kproxy.controlplane.allocate import allocate
from kproxy.controlplane.environment import environment
from kproxy.controlplane.ledger import NOTHING
from kproxy.controlplane.ranges import Ranges
from kproxy.decode import decode
from tests.cases import cases
from tests.unit.make import as_json, manifest, service

RANGES = Ranges((), (30000, 32767))

KUBIA = """
apiVersion: v1
kind: Service
metadata:
  name: kubia
spec:
  clusterIP: 10.66.13.240
  sessionAffinity: ClientIP
  ports:
    - port: 80
      name: http-default
      targetPort: http-default
    - port: 90
      name: http-mux1
      targetPort: http-mux1
  selector:
    app: kubia
---
apiVersion: v1
kind: Service
metadata:
  name: kubernetes
spec:
  clusterIP: 10.66.0.1
  ports:
    - port: 443
      name: https
      targetPort: 443
---
apiVersion: v1
kind: Pod
metadata:
  name: kubia-zhg6k
  labels: {app: kubia}
"""
VARIABLES = Path(__file__).parents[1] / "stories" / "chapter"
KUBIA_VARIABLES = "".join((VARIABLES / f"{each}.env").read_text() for each in ("kubia", "kubernetes"))
"""The output of `env` in a pod of a real cluster, unsorted."""


def of(own: str, ip: str, *ports: dict[str, Any], namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """A Service with this ClusterIP. The default is one port 80."""
    made = service(own, clusterIP=ip, **({"ports": list(ports)} if ports else {}), **spec)
    made["metadata"]["namespace"] = namespace
    return made


def variables(*services: dict[str, Any], namespace: str = "default", **spec: Any) -> dict[str, str]:
    """The environment of a pod in `namespace`, with this spec, if these Services exist."""
    pod = manifest("Pod", "client", metadata={"namespace": namespace}, spec=spec)
    decoded = decode([as_json(obj) for obj in (*services, pod)])
    allocated = allocate(decoded.state.services.values(), NOTHING, RANGES, decoded.unreadable.covers)
    assert decoded.problems + allocated.problems == []
    return environment(allocated.services.values(), decoded.state.pods[0])


WEB_80 = {
    "WEB_PORT": "tcp://10.0.0.1:80",
    "WEB_PORT_80_TCP": "tcp://10.0.0.1:80",
    "WEB_PORT_80_TCP_ADDR": "10.0.0.1",
    "WEB_PORT_80_TCP_PORT": "80",
    "WEB_PORT_80_TCP_PROTO": "tcp",
    "WEB_SERVICE_HOST": "10.0.0.1",
    "WEB_SERVICE_PORT": "80",
}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(of("web", "10.0.0.1"), WEB_80, id="one port, without a name"),
        pytest.param(
            of("web", "10.0.0.1", {"name": "http-alt", "port": 80, "nodePort": 30080}, type="NodePort"),
            {**WEB_80, "WEB_SERVICE_PORT_HTTP_ALT": "80"},
            id="a named port; node ports are ignored",
        ),
        pytest.param(
            of("web", "10.0.0.1", externalIPs=["192.0.2.9"]),
            WEB_80,
            id="external addresses are ignored",
        ),
        pytest.param(
            of("kube-dns", "fd00::a", {"name": "dns", "port": 53, "protocol": "UDP"}),
            {
                "KUBE_DNS_PORT": "udp://[fd00::a]:53",
                "KUBE_DNS_PORT_53_UDP": "udp://[fd00::a]:53",
                "KUBE_DNS_PORT_53_UDP_ADDR": "fd00::a",
                "KUBE_DNS_PORT_53_UDP_PORT": "53",
                "KUBE_DNS_PORT_53_UDP_PROTO": "udp",
                "KUBE_DNS_SERVICE_HOST": "fd00::a",
                "KUBE_DNS_SERVICE_PORT": "53",
                "KUBE_DNS_SERVICE_PORT_DNS": "53",
            },
            id="UDP, IPv6, a dash",
        ),
        pytest.param(
            of(
                "web",
                "10.0.0.1",
                {"name": "z", "port": 80},
                {"name": "a", "port": 80, "protocol": "SCTP"},
            ),
            {
                **WEB_80,
                "WEB_PORT_80_SCTP": "sctp://10.0.0.1:80",
                "WEB_PORT_80_SCTP_ADDR": "10.0.0.1",
                "WEB_PORT_80_SCTP_PORT": "80",
                "WEB_PORT_80_SCTP_PROTO": "sctp",
                "WEB_SERVICE_PORT_A": "80",
                "WEB_SERVICE_PORT_Z": "80",
            },
            id="the first port of the manifest is the port of the service",
        ),
        pytest.param(
            of("web", "10.0.0.1", clusterIPs=["10.0.0.1", "fd00::1"], ipFamilyPolicy="RequireDualStack"),
            WEB_80,
            id="dual stack: the primary family",
        ),
        pytest.param(of("web", "None"), {}, id="headless"),
        pytest.param(service(type="ExternalName", externalName="example.org"), {}, id="ExternalName"),
    ],
)
def test_variables_of_a_service(obj: dict[str, Any], expected: dict[str, str]) -> None:
    found = variables(obj)
    assert found == expected
    assert list(found) == sorted(found)


API = of("kubernetes", "10.0.0.254")
WEB = of("web", "10.0.0.1")


@pytest.mark.parametrize(
    ("services", "pod", "hosts"),
    [
        pytest.param([WEB, API, of("db", "10.0.0.2")], {}, ["db", "kubernetes", "web"], id="by name"),
        pytest.param([WEB, API], {"namespace": "other"}, ["kubernetes"], id="other namespaces are ignored"),
        pytest.param(
            [WEB, API], {"enableServiceLinks": False}, ["kubernetes"], id="enableServiceLinks: false"
        ),
        pytest.param(
            [WEB, API], {"enableServiceLinks": True}, ["kubernetes", "web"], id="enableServiceLinks: true"
        ),
        pytest.param([WEB], {"enableServiceLinks": False}, [], id="enableServiceLinks: false, no API server"),
    ],
)
def test_services_in_the_environment(
    services: list[dict[str, Any]], pod: dict[str, Any], hosts: list[str]
) -> None:
    found = [name for name in variables(*services, **pod) if name.endswith("_SERVICE_HOST")]
    assert found == [f"{host.upper()}_SERVICE_HOST" for host in hosts]


OWN = of("kubernetes", "10.0.0.3", namespace="other")


@pytest.mark.parametrize(
    ("services", "pod", "host"),
    [
        pytest.param(
            [API, OWN], {"namespace": "other"}, "10.0.0.3", id="the namespace's own Service has priority"
        ),
        pytest.param([OWN, API], {"namespace": "other"}, "10.0.0.3", id="in any order"),
        pytest.param([OWN, API], {}, "10.0.0.254", id="not in another namespace"),
        pytest.param(
            [OWN, API],
            {"namespace": "other", "enableServiceLinks": False},
            "10.0.0.254",
            id="not with enableServiceLinks: false",
        ),
        pytest.param(
            [API, of("kubernetes", "None", namespace="other")],
            {"namespace": "other"},
            "10.0.0.254",
            id="not if it is headless",
        ),
    ],
)
def test_the_choice_of_service_kubernetes(
    services: list[dict[str, Any]], pod: dict[str, Any], host: str
) -> None:
    assert variables(*services, **pod)["KUBERNETES_SERVICE_HOST"] == host


def test_of_two_services_with_the_same_variable_the_last_by_name_sets_it() -> None:
    services = [WEB, of("web-service", "10.0.0.2")]
    expected = variables(*services)
    assert expected["WEB_SERVICE_PORT"] == "tcp://10.0.0.2:80"
    assert variables(*services[::-1]) == expected


# --- the command ---


class Env:
    """Runs `kproxy env` in this process on a file with this text."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file = folder / "in.yaml"
        self.state = folder / "state"
        self.capsys = capsys

    def __call__(self, text: str, arguments: str) -> tuple[int, str, str]:
        """Return exit status, output and errors."""
        self.file.write_text(text)
        status = main(["env", *arguments.split(), "-f", str(self.file), "--state-dir", str(self.state)])
        out, err = self.capsys.readouterr()
        return status, out, err


@pytest.fixture
def env(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Env:
    return Env(tmp_path, capsys)


CHAPTER = "kubia-zhg6k --service-cidr 10.66.0.0/16"


def test_pods_that_are_missing_are_not_mentioned(env: Env) -> None:
    """They do not change the variables of a pod."""
    template = "{metadata: {labels: {app: kubia}}}"
    spec = f"{{replicas: 3, template: {template}}}"
    workload = f"{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{name: r}}, spec: {spec}}}"
    status, out, err = env(f"{KUBIA}\n---\n{workload}\n", CHAPTER)
    assert (status, err, "KUBIA_SERVICE_HOST" in out) == (0, "", True)


def test_the_output_equals_that_of_a_real_cluster(env: Env) -> None:
    status, out, err = env(KUBIA, f"{CHAPTER} --format docker")
    assert (status, err) == (0, "")
    assert sorted(out.split()) == sorted(KUBIA_VARIABLES.split())
    assert out.splitlines()[:2] == [
        "KUBERNETES_PORT=tcp://10.66.0.1:443",
        "KUBERNETES_PORT_443_TCP=tcp://10.66.0.1:443",
    ]


def test_the_shell_and_json_formats_agree(env: Env) -> None:
    expected = dict(line.split("=", 1) for line in KUBIA_VARIABLES.split())
    script = env(KUBIA, CHAPTER)[1]
    assert "export KUBIA_SERVICE_HOST='10.66.13.240'\n" in script
    shell = subprocess.run(["sh", "-ec", script + "env"], env={}, capture_output=True, text=True, check=True)
    assert expected.items() <= dict(line.split("=", 1) for line in shell.stdout.splitlines()).items()
    assert json.loads(env(KUBIA, f"{CHAPTER} --format json")[1]) == expected


def test_names_that_a_shell_rejects_are_not_exported(env: Env) -> None:
    text = yaml.safe_dump_all([service("1st", clusterIP="10.96.0.1"), manifest("Pod", "client")])
    assert env(text, "client") == (0, "", "")
    assert "1ST_SERVICE_HOST=10.96.0.1\n" in env(text, "client --format docker")[1]


def test_addresses_are_allocated_as_in_a_sync_but_not_saved(env: Env) -> None:
    text = yaml.safe_dump_all([service(), manifest("Pod", "client")])
    status, out, err = env(text, "client")
    assert (status, err) == (0, "")
    assert "export WEB_SERVICE_HOST='10.99.154.107'\n" in out  # the README's tour
    assert not env.state.exists()


PODS = [manifest("Pod", "a"), manifest("Pod", "b", metadata={"namespace": "other"})]


@cases(
    """
    arguments                  status  message
    a                          0       -
    a -n default               0       -
    default/a                  0       -
    pod/a                      0       -
    pod/other/b                0       -
    b -n other                 0       -
    other/b                    0       -
    other/b --namespace other  0       -
    other/b -n default         2       other/b is not in namespace default (-n).
    b                          1       Pod default/b not found. Did you mean other/b?
    a -n other                 1       Pod other/a not found. Did you mean default/a?
    c                          1       Pod default/c not found.
    """,
    status=int,
)
def test_pod_names(env: Env, arguments: str, status: int, message: str) -> None:
    assert env(yaml.safe_dump_all(PODS), arguments) == (
        status,
        "",
        f"kproxy: {message}\n" if message else "",
    )


def test_problems_are_reported_and_the_rest_is_printed(env: Env) -> None:
    broken = [service("bad", ports=[{"port": 0}]), service("out", clusterIP="10.1.0.1")]
    text = yaml.safe_dump_all([*broken, service(clusterIP="10.96.0.1"), *PODS])
    status, out, err = env(text, "a --service-cidr 10.96.0.0/16 --format docker")
    assert status == 1
    assert err.splitlines() == [
        f"kproxy: {env.file}: Service default/bad: spec.ports[0].port: 0 is not a port (1-65535)",
        f"kproxy: {env.file}: Service default/out: spec.clusterIP: 10.1.0.1 is not in --service-cidr"
        " 10.96.0.0/16",
    ]
    assert {line.split("_")[0] for line in out.splitlines()} == {"WEB"}
