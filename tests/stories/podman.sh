#!/bin/bash
# A story with podman: containers come, stop, pause, become unhealthy, drain, and get other names and networks, and pods
# are played, while `kproxy run` follows them. Runs in a namespace of a lab's node, and in mount and process namespaces of its own: all that it
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
spec:
  ipFamilyPolicy: RequireDualStack
  clusterIPs: [10.96.0.50, "fd00:96::50"]
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {tier: shop}}
  template:
    metadata: {labels: {app: web, tier: shop}}
    spec: {containers: [{name: main, image: localhost/web, command: [/bin/sh, -c, "echo shop >/www/index.html; exec httpd -f -p 8080 -h /www"]}]}
YAML

# serves NAME...: wait until exactly these containers answer at $at.
at=10.96.0.50
serves() {
    local expected found
    expected=$(printf '%s\n' "$@")
    for _ in $(seq 400); do
        found=$(for _ in 1 2 3 4 5 6 7 8 9 10; do curl -s -m 1 "$at" || true; done | sort -u)
        if [[ $found == "$expected" ]]; then echo "$SECONDS s: $*"; return; fi
        sleep 0.1
    done
    echo "expected: $expected; found: $found"
    cat log
    podman ps -a
    curl -s --unix-socket socket http://d/v1.41/containers/json
    exit 1
}

# within SECONDS TEXT: wait until the log has a text. All containers are listed every 20 s, but events come at once.
within() {
    for _ in $(seq $(($1 * 10))); do ! grep -qF -e "$2" log || return 0; sleep 0.1; done
    echo "not in the log: $2"
    cat log
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
# A health check that podman carries out.
start web-5 --health-cmd 'test ! -e /www/sick' --health-interval disable --health-retries 1
podman healthcheck run web-5
serves web-1 web-2 web-3 web-5
podman exec web-5 touch /www/sick
podman healthcheck run web-5 >/dev/null || true
serves web-1 web-2 web-3
podman rm -f -t 0 web-5 >/dev/null
# A container that drains: at SIGTERM its probe fails, and it serves until it may end. No connection fails.
podman run -d -q --name web-6 -l app=web --expose 8080 \
    -l 'kproxy.io/readiness-probe={"exec": {"command": ["test", "!", "-e", "/www/draining"]}, "periodSeconds": 1, "failureThreshold": 1}' \
    web /bin/sh -c 'echo web-6 >/www/index.html; httpd -p 8080 -h /www
        trap "touch /www/draining; while test ! -e /www/end; do sleep 0.1; done; exit 0" TERM
        while :; do sleep 0.1; done' >/dev/null
serves web-1 web-2 web-3 web-6
files=/proc/$(podman inspect --format '{{.State.Pid}}' web-6)/root
address=$(podman inspect --format '{{.NetworkSettings.Networks.podman.IPAddress}}' web-6)
touch asking
while [[ -e asking ]]; do curl -s -m 30 -o /dev/null "$at" && echo ok || echo failed; done >asked &
asker=$!
podman stop -t 60 web-6 >/dev/null 2>&1 &
stopping=$!
within 20 "10.96.0.50:80/tcp -> 3 endpoints (-$address:8080)"  # ten requests may miss an endpoint by chance
serves web-1 web-2 web-3
touch "$files/www/end"  # podman runs no command in a container that stops
wait "$stopping"
serves web-1 web-2 web-3
rm asking
wait "$asker"
echo "during the drain: $(sort asked | uniq -c | tr '\n' ' ')"
if grep -q failed asked; then exit 1; fi
podman rm -f -t 0 web-6 >/dev/null
# A second network, with IPv6. A container that is connected to it gets an address there.
podman network create --ipv6 --subnet 10.89.7.0/24 --subnet fd00:89::/64 second >/dev/null
start web-7 --network second
serves web-1 web-2 web-3 web-7
at='[fd00:96::50]'
serves web-7
podman network connect second web-1
within 10 '[fd00:96::50]:80/tcp -> 2 endpoints'
serves web-1 web-7
podman network disconnect second web-1
within 10 '[fd00:96::50]:80/tcp -> 1 endpoint (-'
serves web-7
at=10.96.0.50
podman rm -f -t 0 web-7 >/dev/null
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
# A Deployment, which the folder of manifests has, too.
grep -q 'Deployment default/shop wants 1 pod with tier=shop, and 0 exist. .*`podman kube play` starts Pods' log
sed '1,/^---$/d' manifests/web.yaml >shop.yaml
podman play kube shop.yaml >/dev/null 2>&1
serves played shop web-1 web-2
"$KPROXY" get deploy --state-dir "$PWD/kproxy" | grep -q '^shop *1/1 '
