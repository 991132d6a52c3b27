"""kproxy as deploy/daemonset.yaml runs it, without a container engine.

What of a container decides whether kproxy can work in it is taken from the manifest: the command line,
the environment, the volumes, a root that cannot be written, capabilities. The process has all that in a
mount namespace of its own; its files are this machine's, not the image's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import yaml
from netns_lab.lab import Handle

from tests.support import Manifest, Process, Running

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy" / "daemonset.yaml"
SERVICE_ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds its token; /var/run is a link."""

# (PLACE FOLDER ro|rw)... -- COMMAND...: places that this machine need not have are made in file systems of
# the namespace's own; what is not rw cannot be written, nor can all the rest.
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
    """What is in the manifest, by kind."""
    return {found["kind"]: found for found in yaml.safe_load_all(MANIFESTS.read_text())}


def template() -> Manifest:
    """The pods' spec."""
    return dict(objects()["DaemonSet"]["spec"]["template"]["spec"])


class Deployed(Running):
    """The DaemonSet's container on a node.

    `account` has a token and ca.crt, `config_map` the files of that volume.
    """

    def __init__(self, node: Handle, folder: Path, account: Path, config_map: Path) -> None:
        super().__init__(node, folder)
        (self.container,) = template()["containers"]
        self.environment: dict[str, str] = {}
        """Of the container, beside what the manifest says."""
        self._given = {"configMap": config_map, "hostPath": self.kproxy.state, "emptyDir": folder / "empty"}
        self._account = account
        self.kproxy.state.mkdir()
        (folder / "empty").mkdir()

    def launch(self, log: IO[str]) -> Process:
        return self.kproxy.node.popen(self.command(), stdout=log, stderr=log)

    def command(self) -> list[str]:
        """The command line of a container engine's kind, for a shell in namespaces of its own."""
        sources = {
            volume["name"]: folder
            for volume in template()["volumes"]
            for kind, folder in self._given.items()
            if kind in volume
        }
        places = [(SERVICE_ACCOUNT, self._account, "ro")] + [
            (at["mountPath"], sources[at["name"]], "ro" if at.get("readOnly") else "rw")
            for at in self.container["volumeMounts"]
        ]
        places.append((str(ROOT), ROOT, "ro"))  # wherever it is, no volume hides it
        return [
            *("unshare", "--mount", "--propagation=private", "sh", "-c", _ENTER, "sh"),
            *(str(part) for place in places for part in place),
            *("--", "env", *(f"{name}={value}" for name, value in self._variables().items())),
            *self._restricted(),
            *(sys.executable, "-m", "kproxy"),
            *(word.replace("$(NODE_NAME)", self.kproxy.node.name) for word in self.container["args"]),
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
    """As a pod that is told nothing finds its cluster: by the environment that every container has."""
    running.container["args"] = ["run", "--node-name=$(NODE_NAME)", f"--cluster-cidr={cluster_cidr}"]
    running.environment = dict(environment)


def write_config_map(folder: Path, server: str, cluster_cidr: str, name: str = "") -> None:
    """The two files of kubeadm's ConfigMap kube-system/kube-proxy, as they are mounted.

    `name`: what the server's certificate is for, if that is not its address.
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
