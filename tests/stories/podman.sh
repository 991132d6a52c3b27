#!/bin/bash
# A story with podman: containers come, stop, pause and get other names, and a pod is played, while `kproxy run`
# follows them. Runs in a namespace of a lab's node, and in mount and process namespaces of its own: all that it
# starts ends with it. Prints each step. Exits with 0 if all steps succeed.
#
# KPROXY: the path of kproxy
set -euo pipefail
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

# Every file of podman is on these two file systems.
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt
cd /mnt
mkdir -p /run/netns networks manifests root/bin root/www
umount /sys/fs/cgroup/unified 2>/dev/null || true  # crun does not accept two hierarchies

export CONTAINERS_CONF=$PWD/containers.conf
cat >"$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[network]
network_backend = "netavark"
network_config_dir = "$PWD/networks"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "crun"
tmp_dir = "$PWD/tmp"
CONF
podman() { command podman --root "$PWD/storage" --runroot "$PWD/state" --storage-driver vfs "$@"; }

cp /bin/busybox root/bin/
for library in $({ ldd /bin/busybox || true; } | grep -o '/[^ ]*' || true); do cp --parents -L "$library" root; done  # none if it is static
for tool in sh httpd hostname sleep test touch rm; do ln -s busybox "root/bin/$tool"; done
tar -C root -c . | podman import -q - web >/dev/null
podman system service --time 0 "unix://$PWD/socket" &
# start NAME [FLAG...]: run a container that answers with its name.
start() { podman run -d -q --name "$1" -l app=web --expose 8080 "${@:2}" web /bin/sh -c "echo $1 >/www/index.html; exec httpd -f -p 8080 -h /www" >/dev/null; }

cat >manifests/web.yaml <<YAML
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.50, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
YAML

# serves NAME...: wait until exactly these containers answer.
serves() {
    local expected found
    expected=$(printf '%s\n' "$@")
    for _ in $(seq 400); do
        found=$(for _ in 1 2 3 4 5 6 7 8 9 10; do curl -s -m 1 10.96.0.50 || true; done | sort -u)
        if [[ $found == "$expected" ]]; then echo "$SECONDS s: $*"; return; fi
        sleep 0.1
    done
    echo "expected: $expected; found: $found"
    cat log
    podman ps -a
    curl -s --unix-socket socket http://d/v1.41/containers/json
    exit 1
}

start web-1
# Else the bridge has the lowest address of its ports, which changes when a container ends; the others know the old one.
ip link set podman0 address 02:00:00:00:00:01
start web-2
for _ in $(seq 100); do [[ ! -S socket ]] || break; sleep 0.1; done
"$KPROXY" run -f manifests --pods-from "podman=$PWD/socket" --state-dir "$PWD/kproxy" --no-dns >log 2>&1 &
serves web-1 web-2
podman stop -t 0 web-2 >/dev/null
serves web-1
start web-3
serves web-1 web-3
podman pause web-3 >/dev/null
serves web-1
podman unpause web-3 >/dev/null
podman start web-2 >/dev/null
serves web-1 web-2 web-3
# A readiness probe runs a command in the container. One that takes too long is killed.
start web-4 -l 'kproxy.io/readiness-probe={"exec": {"command": ["sh", "-c", "test -e /www/ready || sleep 77"]}, "periodSeconds": 1, "failureThreshold": 1}'
serves web-1 web-2 web-3
for _ in $(seq 300); do ! grep -q 'web-4 is not ready: .*timed out' log || break; sleep 0.1; done
podman exec web-4 touch /www/ready
serves web-1 web-2 web-3 web-4
for _ in $(seq 300); do pgrep -f 'sleep 77' >/dev/null || break; sleep 0.1; done
if pgrep -fa 'sleep 77'; then exit 1; fi
podman exec web-4 rm /www/ready
serves web-1 web-2 web-3
podman rm -f -t 0 web-4 >/dev/null
podman rename web-1 web-9
podman rm -f -t 0 web-3 >/dev/null
serves web-1 web-2
"$KPROXY" get pods --state-dir "$PWD/kproxy" | grep -q '^web-9 .*Running'
cat >pod.yaml <<YAML
apiVersion: v1
kind: Pod
metadata: {name: played, labels: {app: web}}
spec: {containers: [{name: main, image: localhost/web, command: [/bin/sh, -c, "echo played >/www/index.html; exec httpd -f -p 8080 -h /www"], ports: [{containerPort: 8080}]}]}
YAML
podman play kube pod.yaml >/dev/null 2>&1
serves played web-1 web-2
"$KPROXY" get pods --state-dir "$PWD/kproxy" | grep -q '^played .*1/1'
