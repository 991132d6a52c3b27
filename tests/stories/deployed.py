"""kproxy as deploy/daemonset.yaml runs it, without a container engine.

It takes from the manifest what matters for kproxy: the command line, the environment, the volumes, a
read-only root file system, and the capabilities. The process gets these in a new mount namespace; the files
are this machine's, not the image's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml
from netns_lab.lab import Handle

from tests.support import Manifest, Process, Running

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "daemonset.yaml"
SERVICE_ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token; /var/run is a symbolic link."""

# (PLACE FOLDER ro|rw)... -- COMMAND...: creates the places, which may not exist on this machine, in file
# systems of the namespace. Everything but the places with rw is read-only.
_ENTER = """
set -e
mount -t tmpfs tmpfs /mnt
number=0
places=
writable=" "
while [ "$1" != -- ]; do
    number=$((number + 1))
    mkdir "/mnt/$number"
    mount --bind "$2" "/mnt/$number"
    places="$places $1"
    [ "$3" = ro ] || writable="$writable$1 "
    shift 3
done
shift
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
number=0
for place in $places; do
    number=$((number + 1))
    mkdir -p "$place"
    mount --bind "/mnt/$number" "$place"
done
umount -R /mnt
for at in $(cut -d " " -f 5 /proc/self/mountinfo); do
    case $writable in *" $at "*) continue ;; esac
    mount -o remount,bind,ro "$at" 2>/dev/null || [ "$at" != / ]
done
exec "$@"
"""


def objects() -> dict[str, Manifest]:
    """Return the objects in the manifest, by kind."""
    return {found["kind"]: found for found in yaml.safe_load_all(MANIFESTS.read_text())}


def template() -> Manifest:
    """Return the spec of the pods."""
    return dict(objects()["DaemonSet"]["spec"]["template"]["spec"])


class Deployed(Running):
    """The DaemonSet's container on a node.

    `account` contains a token and ca.crt; `config_map` contains the files of that volume.
    """

    def __init__(self, node: Handle, folder: Path, account: Path, config_map: Path) -> None:
        super().__init__(node, folder)
        (self.container,) = template()["containers"]
        (self.init_container,) = template()["initContainers"]
        self.environment: dict[str, str] = {}
        """Variables of the container in addition to those in the manifest."""
        self._volumes = {"configMap": config_map, "hostPath": self.kproxy.state, "emptyDir": folder / "empty"}
        self._account = account
        self.kproxy.state.mkdir()
        (folder / "empty").mkdir()

    def launch(self, log: IO[str]) -> Process:
        environment = ["env", *(f"{name}={value}" for name, value in self._variables().items())]
        self.kproxy.node.run(self._command(self.init_container), stdout=log, stderr=log, check=True)
        command = self._command(self.container, [*environment, *self._restricted()])
        return self.kproxy.node.popen(command, stdout=log, stderr=log)

    def _command(self, container: Manifest, prefix: Sequence[str] = ()) -> list[str]:
        """Return the command line that a container engine would run, in new namespaces."""
        sources = {
            volume["name"]: folder
            for volume in template()["volumes"]
            for kind, folder in self._volumes.items()
            if kind in volume
        }
        places = [(SERVICE_ACCOUNT, self._account, "ro")] + [
            (at["mountPath"], sources[at["name"]], "ro" if at.get("readOnly") else "rw")
            for at in container["volumeMounts"]
        ]
        if container["securityContext"].get("privileged"):
            places.append(("/proc/sys", Path("/proc/sys"), "rw"))
        places.append((str(ROOT), ROOT, "ro"))  # so that no volume hides it
        return [
            *("unshare", "--mount", "--propagation=private", "sh", "-c", _ENTER, "sh"),
            *(str(part) for place in places for part in place),
            *("--", *prefix, sys.executable, "-m", "kproxy"),
            *(word.replace("$(NODE_NAME)", self.kproxy.node.name) for word in container["args"]),
        ]

    def _variables(self) -> Mapping[str, str]:
        own = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in self.container["env"]}
        assert own == {"NODE_NAME": "spec.nodeName"}
        return {"NODE_NAME": self.kproxy.node.name, **self.environment}

    def _restricted(self) -> list[str]:
        context: dict[str, Any] = self.container["securityContext"]
        assert context["capabilities"]["drop"] == ["ALL"]
        added = "".join(f",+{name.lower()}" for name in context["capabilities"]["add"])
        assert context["allowPrivilegeEscalation"] is False
        return ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set=-all{added}"]


def without_config_map(running: Deployed, cluster_cidr: str, environment: Mapping[str, str]) -> None:
    """Configure nothing: a pod then finds the cluster by the environment variables of every container."""
    running.container["args"] = ["run", "--node-name=$(NODE_NAME)", f"--cluster-cidr={cluster_cidr}"]
    running.environment = dict(environment)


def write_config_map(folder: Path, server: str, cluster_cidr: str, name: str = "") -> None:
    """Write the two files of kubeadm's ConfigMap kube-system/kube-proxy, as they are mounted.

    `name`: the name in the server's certificate, if it differs from the address.
    """
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    cluster = {"certificate-authority": f"{account}/ca.crt", "server": server}
    cluster |= {"tls-server-name": name} if name else {}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"cluster": cluster, "name": "default"}],
        "contexts": [
            {"context": {"cluster": "default", "namespace": "default", "user": "default"}, "name": "default"}
        ],
        "current-context": "default",
        "users": [{"name": "default", "user": {"tokenFile": f"{account}/token"}}],
    }
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",
        "clientConnection": {"kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf"},
        "clusterCIDR": cluster_cidr,
        "mode": "nftables",
    }
    folder.mkdir()
    (folder / "kubeconfig.conf").write_text(json.dumps(kubeconfig))
    (folder / "config.conf").write_text(json.dumps(configuration))
