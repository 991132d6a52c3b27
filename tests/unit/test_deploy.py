"""What is in deploy/: units and manifests that fit the program, and no more rights than it uses."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from configparser import RawConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

import kproxy
from kproxy.settings.flags import flags_of
from kproxy.sources.cluster.core.resources import (
    GATEWAY_API,
    SERVICE_CIDRS,
    SERVICES,
    SLICES,
    node_resource,
)

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


def unknown(words: list[str]) -> list[str]:
    """Flags among words that `kproxy run` does not have."""
    known = {spelling for flag in flags_of("run") for spelling in flag.spellings}
    return [
        flag for flag in (word.partition("=")[0] for word in words if word[0] == "-") if flag not in known
    ]


class Unit(RawConfigParser):
    """A unit file; of a key that is given twice, the last."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False)
        self.read(path)

    def optionxform(self, optionstr: str) -> str:
        """As it is."""
        return optionstr


@pytest.fixture(params=UNITS, ids=lambda path: path.name)
def unit(request: pytest.FixtureRequest) -> Path:
    """Each unit in turn."""
    return Path(request.param)


def test_a_unit_runs_what_there_is(unit: Path) -> None:
    words = shlex.split(Unit(unit)["Service"]["ExecStart"])
    assert words[:2] == ["/usr/local/bin/kproxy", "run"]
    assert words[-1] == "$KPROXY_FLAGS"
    assert unknown(words) == []
    examples = re.findall(r"^#\s+KPROXY_FLAGS=(.*)$", unit.read_text(), re.MULTILINE)
    assert examples
    assert unknown(shlex.split(examples[0])) == []


def test_a_unit_says_when_it_is_ready_and_that_it_lives(unit: Path) -> None:
    service = Unit(unit)["Service"]
    assert (service["Type"], service["Restart"], service["NotifyAccess"]) == ("notify", "always", "main")
    assert int(service["WatchdogSec"]) >= 10
    # By default, systemd gives up for good after five failures in ten seconds.
    assert Unit(unit)["Unit"]["StartLimitIntervalSec"] == "0"


def test_what_an_api_server_may_stand_on_does_not_wait_for_us(unit: Path) -> None:
    """A kubelet starts the API server where it is a static pod; without it we do not get ready."""
    assert "Before" not in Unit(unit)["Unit"]


def test_a_unit_may_do_little(unit: Path) -> None:
    service = Unit(unit)["Service"]
    capabilities = set(service["CapabilityBoundingSet"].split())
    of_manifests = {"CAP_NET_RAW", "CAP_NET_BIND_SERVICE"} if unit.stem == "kproxy" else set()
    assert capabilities == {"CAP_NET_ADMIN"} | of_manifests
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")
    assert service["RestrictNamespaces"] == "net user"  # the fewest with which a child can load a ruleset
    assert "AF_NETLINK" in service["RestrictAddressFamilies"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_takes_a_unit(unit: Path, tmp_path: Path) -> None:
    # The command need not be installed here; everything else has to be right.
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/local/bin/kproxy", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []
    assert done.returncode == 0


EXPOSURE = {"kproxy": 2.5, "kproxy-cluster": 2.3}
"""What `systemd-analyze security` says, as docs/security.md does. Later versions of systemd say less."""


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_a_unit_stays_as_restricted_as_the_docs_say(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd before 250")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= EXPOSURE[unit.stem]
    assert f"`{unit.name}` {EXPOSURE[unit.stem]}" in (DEPLOY.parent / "docs" / "security.md").read_text()


# --- the cluster ---


def objects() -> dict[str, Any]:
    """What is in the manifest, by kind."""
    return {found["kind"]: found for found in yaml.safe_load_all((DEPLOY / "daemonset.yaml").read_text())}


def pod() -> dict[str, Any]:
    """The pods' spec."""
    return dict(objects()["DaemonSet"]["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    """The one that there is."""
    (found,) = pod()["containers"]
    return dict(found)


def test_the_init_container_is_the_only_one_with_all_rights() -> None:
    (found,) = pod()["initContainers"]
    assert found["args"][:2] == ["run", "--init-only"]
    assert found["args"][2:] == [word for word in container()["args"] if word.startswith("--config")]
    assert found["image"] == container()["image"]
    assert found["securityContext"] == {"privileged": True}
    assert "privileged" not in container()["securityContext"]
    assert unknown(found["args"]) == []


def test_a_unit_for_a_cluster_changes_connection_tracking_first() -> None:
    service = Unit(DEPLOY / "kproxy-cluster.service")["Service"]
    before, main = service["ExecStartPre"], service["ExecStart"]
    assert before == "+" + main.replace(" run ", " run --init-only ")


def test_objects_refer_to_each_other() -> None:
    found = objects()
    account, role, binding = found["ServiceAccount"], found["ClusterRole"], found["ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    subject = {"kind": "ServiceAccount", **{key: account["metadata"][key] for key in ("name", "namespace")}}
    assert binding["subjects"] == [subject]
    assert pod()["serviceAccountName"] == account["metadata"]["name"]
    spec = found["DaemonSet"]["spec"]
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    mounted = {mount["name"] for mount in container()["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod()["volumes"]}


WRITTEN = ("GatewayClass", "Gateway", "TCPRoute", "UDPRoute")
"""The kinds whose status is written."""


def allowed(role: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(API group, resource, verb)."""
    for rule in role["rules"]:
        assert rule.keys() == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                yield from ((group, resource, verb) for verb in rule["verbs"])


def test_rights_are_what_the_source_asks_for_and_no_more() -> None:
    asked = set()
    for resource in (SERVICES, SLICES, node_resource("n1"), SERVICE_CIDRS):
        *prefix, name = resource.path.strip("/").split("/")
        group = prefix[1] if prefix[0] == "apis" else ""
        asked |= {(group, name, verb) for verb in ("list", "watch")}
    assert set(allowed(objects()["ClusterRole"])) == asked


def test_rights_of_the_gateway_controller_are_what_it_asks_for_and_no_more() -> None:
    asked = set()
    for resource in GATEWAY_API:
        *prefix, name = resource.path.strip("/").split("/")
        group = prefix[1] if prefix[0] == "apis" else ""
        asked |= {(group, name, verb) for verb in ("list", "watch")}
        if resource.kind in WRITTEN:
            asked |= {(group, name, "get"), (group, f"{name}/status", "update")}
    cluster, _, local, _ = yaml.safe_load_all((DEPLOY / "gateway-controller" / "rights.yaml").read_text())
    assert set(allowed(cluster)) == asked
    leases = {("coordination.k8s.io", "leases", verb) for verb in ("get", "create", "update")}
    assert (local["metadata"]["namespace"], set(allowed(local))) == ("kube-system", leases)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
def test_kubectl_takes_the_component_of_the_gateway_controller(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "base")
    overlay = {"resources": ["base"], "components": ["base/gateway-controller"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    done = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=True)
    found = list(yaml.safe_load_all(done.stdout))
    (daemon,) = (each for each in found if each["kind"] == "DaemonSet")
    (args,) = (each["args"] for each in daemon["spec"]["template"]["spec"]["containers"])
    assert args == [*container()["args"], "--gateway-controller"]
    assert unknown(args) == []
    accounts = {each["metadata"]["name"] for each in found if each["kind"] == "ServiceAccount"}
    bound = (each["subjects"] for each in found if each["kind"].endswith("Binding"))
    assert {subject["name"] for subjects in bound for subject in subjects} == accounts


def test_it_runs_on_every_node_it_is_told_to_before_others_can() -> None:
    spec = pod()
    assert spec["hostNetwork"] is True
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux", "kproxy.io/proxy": "kproxy"}
    assert objects()["DaemonSet"]["metadata"]["namespace"] == "kube-system"


def test_kustomize_has_every_object_and_sets_the_image() -> None:
    """`kubectl apply -k deploy`. A registry's name then has to be entered once, not for each container."""
    base = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
    assert base["kind"] == "Kustomization"
    assert base["resources"] == [path.name for path in DEPLOY.glob("*.yaml") if path.stem != "kustomization"]
    (image,) = base["images"]
    assert image == {"name": "kproxy", "newName": "kproxy", "newTag": kproxy.__version__}
    used = {found["image"].partition(":")[0] for found in (*pod()["containers"], *pod()["initContainers"])}
    assert used == {image["name"]}


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl")
def test_kubectl_takes_the_base_and_an_overlay(tmp_path: Path) -> None:
    registry = {"name": "kproxy", "newName": "registry.example/kproxy", "newTag": "2"}
    overlay = {"resources": ["base"], "images": [registry]}
    shutil.copytree(DEPLOY, tmp_path / "base")
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    for folder, image in ((DEPLOY, container()["image"]), (tmp_path, "registry.example/kproxy:2")):
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True)
        made = {found["kind"]: found for found in yaml.safe_load_all(done.stdout)}
        assert made.keys() == objects().keys()
        spec = made["DaemonSet"]["spec"]["template"]["spec"]
        assert {found["image"] for found in (*spec["containers"], *spec["initContainers"])} == {image}


def test_it_has_as_long_to_start_as_the_units_give_it() -> None:
    probe = container()["startupProbe"]
    assert probe["httpGet"] == container()["livenessProbe"]["httpGet"]
    limits = {Unit(unit)["Service"]["TimeoutStartSec"] for unit in UNITS}
    assert limits == {f"{probe['periodSeconds'] * probe['failureThreshold'] // 60}min"}


def test_the_memory_requested_is_what_was_measured() -> None:
    """The peak with 1,000 Services, and at most half of it in addition."""
    page = (DEPLOY.parent / "docs" / "performance.md").read_text()
    peak = re.search(r"^\| peak memory \| (\d+) MB ", page, re.MULTILINE)
    assert peak
    requested = int(container()["resources"]["requests"]["memory"].removesuffix("Mi"))
    assert int(peak[1]) <= requested * 1.048576 <= 1.5 * int(peak[1])


def test_its_flags_and_probes_are_those_of_the_program() -> None:
    verb, *words = container()["args"]
    assert verb == "run"
    assert unknown(words) == []
    probes = {kind: container()[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness")}
    assert probes == {
        "liveness": {"path": "/livez", "port": 10256},
        "readiness": {"path": "/healthz", "port": 10256},
    }
    assert container()["image"].endswith(f":{kproxy.__version__}")


def test_a_container_may_do_little() -> None:
    context = container()["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    writable = [mount["mountPath"] for mount in container()["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/var/lib/kproxy"]


def test_the_image_is_made_of_the_package() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}"]
    assert "nftables /build/kproxy_*.deb" in text  # nft is for operators
    # A mounted file is not a part of what an engine compares with its cache.
    assert "build --no-cache " in text
    assert "build --no-cache " in (DEPLOY.parent / "scripts" / "image").read_text()
    assert f"kproxy:{kproxy.__version__}" in text
    seen = [line for line in (DEPLOY.parent / ".containerignore").read_text().splitlines() if line[0] != "#"]
    assert seen == ["*", "!build/kproxy_*.deb"]


# --- Debian ---

DEBIAN = DEPLOY / "debian"
BUILD = (DEPLOY.parent / "scripts" / "deb").read_text()
SCRIPTS = [DEBIAN / name for name in ("postinst", "prerm", "postrm", "rtupdate")]


def control() -> dict[str, str]:
    """The fields of the package."""
    text = re.sub(r"\n ", " ", (DEBIAN / "control").read_text())
    return dict(line.split(": ", 1) for line in text.splitlines())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_maintainer_script_parses_and_ends_at_an_error(script: Path) -> None:
    assert script.read_text().startswith("#!/bin/sh\n")
    assert "\nset -e\n" in script.read_text()
    subprocess.run(["sh", "-n", script], check=True)


@pytest.mark.parametrize("script", SCRIPTS[:3], ids=lambda script: script.name)
def test_a_maintainer_script_names_every_unit(script: Path) -> None:
    assert set(re.findall(r"[\w-]+\.service", script.read_text())) == {unit.name for unit in UNITS}


def test_the_package_has_libraries_for_every_python_that_it_accepts() -> None:
    built = re.search(r"^PYTHONS=\((.*)\)$", BUILD, re.MULTILINE)
    assert built
    accepted = [relation for relation in control()["Depends"].split(", ") if relation.startswith("python3 ")]
    assert built[1].split() == ["3.11", "3.13"]
    assert accepted == [
        "python3 (>= 3.11~)",
        "python3 (<< 3.14~)",
        "python3 (<< 3.12~) | python3 (>= 3.13~)",
    ]


def test_compiled_code_is_the_same_after_an_installation_and_a_new_python() -> None:
    lines = [line.strip() for script in (SCRIPTS[0], SCRIPTS[3]) for line in script.read_text().splitlines()]
    assert [line for line in lines if "py3compile" in line] == ["py3compile -p kproxy /usr/lib/kproxy"] * 2


def test_the_command_of_the_package_runs_its_own_code_only() -> None:
    text = (DEBIAN / "kproxy").read_text()
    assert text.startswith("#!/usr/bin/python3 -IB\n")
    assert 'sys.path.insert(0, "/usr/lib/kproxy")' in text
