"""Random events on a node and its cluster: objects, the API server, kproxy, the tables.

Each event is small and may follow any other. `Chaos.calm` reverts what prevents correct tables: an
unreachable server, pending faults, objects that cannot be decoded.
"""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.apiserver.faults import Answer, Reset, Trickle
from tests.apiserver.objects import node
from tests.stories.doubled import DoubleStory
from tests.support import FAMILIES, Manifest, service, slices

SERVICES = 40
PODS = ("pod-1", "pod-2", "pod-3")
SHARED_IPS = ("198.51.100.7", "2001:db8:5::7")
TYPES = ("ClusterIP", "ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "headless", "elsewhere")
MAPS = ("services", "endpoints-tcp", "equal-bytes", "cluster-ips", "masquerade-rules", "affinity-rules")


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of this signal. A kproxy that just starts has none, and would end."""
    caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> number - 1 & 1)


class Chaos:
    """Causes events on one node that follows the double. All choices come from one random generator."""

    def __init__(self, following: DoubleStory, seed: int, kills: bool = True) -> None:
        self.following, self.chance, self.kills = following, random.Random(seed), kills
        self.api, self.running = following.api, following.running
        self.done: list[str] = []
        """The events, in order."""
        self.web: list[str] = []
        """The endpoints of the Service that packets are sent to."""
        self._broken: set[int] = set()
        self._backup: Any = None
        self._broken_then: set[int] = set()
        """The broken objects in the backup."""
        self._acts: list[tuple[int, Callable[[], None]]] = [
            (30, self.change_service),
            (30, self.change_slices),
            (4, self.delete_service),
            (4, self.move_slice),
            (4, self.change_web),
            (3, self.burst),
            (2, self.change_node),
            (2, self.break_object),
            (3, self.fail_requests),
            (3, self.disturb_watches),
            (1, self.server_goes),
            (1, self.restore),
            (2, self.flush),
            (4, self.take_elements),
            (3, self.add_elements),
            (4, self.foreign_tables),
            (1, self.sighup),
            (1 if kills else 0, self.kill),
        ]

    def act(self) -> None:
        """Cause one event."""
        weights, acts = zip(*self._acts, strict=True)
        (act,) = self.chance.choices(acts, weights)
        self.done.append(act.__name__)
        act()

    def calm(self) -> None:
        """Remove everything that prevents correct tables."""
        self.api.faults.clear()
        self.api.resume()
        self.api.watches.release()
        for number in self._broken:
            self._put(self._service(number), *self._slices(number))
        self._broken.clear()
        if self.running.process.poll() is not None:
            self.running.start(wait=False)

    # --- objects ---

    def change_service(self) -> None:
        self._put(self._service(self._any()))

    def change_slices(self) -> None:
        self._put(*self._slices(self._any()))

    def delete_service(self) -> None:
        chosen = self.chance.choice(self.following.objects())
        if chosen["metadata"]["name"].startswith("svc-"):
            self.api.delete(chosen)

    def move_slice(self) -> None:
        """Assign a slice to another Service."""
        (made, *_) = self._slices(self._any())
        made["metadata"]["labels"]["kubernetes.io/service-name"] = f"svc-{self._any()}"
        self._put(made)

    def change_web(self) -> None:
        self.web = sorted(self.chance.sample(PODS, self.chance.randint(1, len(PODS))))
        self._put(service(), *slices(self.following.lab, self.web))

    def burst(self) -> None:
        with self.api.burst():
            for _ in range(30):
                self.chance.choice((self.change_service, self.change_slices))()

    def change_node(self) -> None:
        self.api.apply(node("n1", {"topology.kubernetes.io/zone": self.chance.choice(("a", "b", ""))}))

    def break_object(self) -> None:
        """Make an object undecodable, until `calm`."""
        number = self._any()
        made = self.chance.choice([self._service(number), *self._slices(number)])
        if made["kind"] == "Service":
            made["spec"]["ports"] = [{"port": 0}]
        else:
            made["endpoints"] = [{"addresses": ["nonsense"]}]
        self._put(made)
        self._broken.add(number)

    def _any(self) -> int:
        return self.chance.randrange(SERVICES)

    def _put(self, *manifests: Manifest) -> None:
        self.following.apply(*manifests)

    def _service(self, number: int) -> Manifest:
        chance = self.chance
        kind = chance.choice(TYPES)
        ports = [
            {
                "name": f"p{n}",
                "port": 80 + n,
                "protocol": chance.choice(("TCP", "TCP", "UDP", "SCTP")),
                "targetPort": 8080,
                **({"nodePort": 30000 + 4 * number + n} if kind in ("NodePort", "LoadBalancer") else {}),
            }
            for n in range(chance.randint(1, 3))
        ]
        spec: Manifest = {"type": kind if kind[0].isupper() and kind != "headless" else "ClusterIP"}
        if chance.random() < 0.3:
            timeout = chance.choice((10, 60, 10800))
            spec |= {
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": timeout}},
            }
        if chance.random() < 0.2:
            spec["externalIPs"] = list(SHARED_IPS)
        if kind in ("NodePort", "LoadBalancer") and chance.random() < 0.3:
            spec["externalTrafficPolicy"] = "Local"
            if kind == "LoadBalancer":
                spec["healthCheckNodePort"] = 32000 + number
        if kind == "LoadBalancer" and chance.random() < 0.5:
            spec["loadBalancerSourceRanges"] = chance.sample(
                ["10.0.0.0/8", "192.168.77.0/24", "fd77::/64"], 2
            )
        families = chance.choice((FAMILIES, FAMILIES[:1], FAMILIES[1:]))
        ips = {4: f"10.96.1.{number + 1}", 6: f"fd00:96::1:{number + 1:x}"}
        made = service(f"svc-{number}", *ports, families=families, cluster_ips=ips, **spec)  # type: ignore[arg-type]
        if kind == "LoadBalancer":
            ingress = [{"ip": f"203.0.113.{number + 1}"}, {"ip": f"2001:db8:9::{number + 1:x}"}]
            made["status"] = {"loadBalancer": {"ingress": ingress}}
        if kind == "elsewhere":
            made["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
        if kind == "headless":
            made["spec"] |= {"clusterIP": "None", "clusterIPs": ["None"]}
        if kind == "ExternalName":
            made["spec"] = {"type": "ExternalName", "externalName": "example.org"}
        return made

    def _slices(self, number: int) -> list[Manifest]:
        chance, found = self.chance, []
        for family, prefix in ((4, "10.244.9."), (6, "fd00:10:244:9::")):
            endpoints = [
                {
                    "addresses": [f"{prefix}{last}"],
                    "nodeName": chance.choice(("n1", "n2")),
                    "conditions": {"ready": chance.random() < 0.8},
                }
                for last in chance.sample(range(1, 100), chance.randint(0, 6))
            ]
            ports = [{"name": f"p{n}", "port": 8080, "protocol": "TCP"} for n in range(3)]
            found.append(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "name": f"svc-{number}-{family}",
                        "labels": {"kubernetes.io/service-name": f"svc-{number}"},
                    },
                    "addressType": f"IPv{family}",
                    "ports": ports,
                    "endpoints": endpoints,
                }
            )
        return found

    # --- the API server ---

    def fail_requests(self) -> None:
        effect = self.chance.choice(
            (
                Answer(500),
                Answer(429, retry_after=1),
                Answer(403),
                Answer(401),
                Reset(300),
                Reset(),
                Trickle(200, 0.002),
            )
        )
        self.api.faults.add(
            effect, verb=self.chance.choice(("list", "watch")), times=self.chance.randint(1, 2)
        )

    def disturb_watches(self) -> None:
        kind = self.chance.choice(("services", "endpointslices", ""))
        how = self.chance.choice(("end", "reset", "expire", "bookmark", "garbage", "half", "hold"))
        if how == "garbage":
            self.api.watches.inject(b"<html>busy</html>\n", kind)
        elif how == "half":
            self.api.watches.inject(b'{"type":"ADDED","object":{"kind":', kind)
            self.api.watches.reset(kind)
        else:
            getattr(self.api.watches, how)(kind)

    def server_goes(self) -> None:
        """Make the server unreachable for a moment in which objects change, with or without compaction."""
        self.api.stop()
        for _ in range(10):
            self.chance.choice((self.change_service, self.change_slices, self.delete_service))()
        time.sleep(self.chance.uniform(0, 1))
        if self.chance.random() < 0.5:
            self.api.store.compact()
        self.api.resume()

    def restore(self) -> None:
        """Restore an earlier content of etcd.

        kproxy detects this by the lower revision. If other clients raise the revision to its old value before
        kproxy reads it, kproxy cannot detect it. So the function waits until kproxy watches again.
        """
        if self._backup is not None:
            self.api.faults.clear()
            self.api.restore(self._backup)
            self._broken |= self._broken_then
            if self.running.process.poll() is None:
                self.following.watched()
            self.change_web()
        self._backup = self.api.store.backup() if self.chance.random() < 0.5 else None
        self._broken_then = set(self._broken)

    # --- the tables ---

    def flush(self) -> None:
        what = self.chance.choice(("flush ruleset", "delete table ip kproxy", "flush table ip6 kproxy"))
        self._nft(what)

    def take_elements(self) -> None:
        family, name = self.chance.choice(("ip", "ip6")), self.chance.choice(MAPS)
        self._nft(f"flush map {family} kproxy {name}" if self.chance.random() < 0.3 else self._one(family))

    def add_elements(self) -> None:
        last = self.chance.randint(1, 200)
        self._nft(
            self.chance.choice(
                (
                    f"add element ip kproxy services {{ 10.96.1.{last} . tcp . 79 : goto no-endpoints }}",
                    f"add element ip kproxy cluster-ips {{ 10.96.200.{last} }}",
                    f"add element ip kproxy endpoints-tcp {{ 10.96.1.{last} . 80 . 900 : 10.9.9.9 . 1 }}",
                    "add rule ip6 kproxy services counter accept",
                    "add chain ip kproxy foreign",
                )
            )
        )

    def foreign_tables(self) -> None:
        """Create and delete a table that does not belong to kproxy."""
        self._nft("add table ip other; add set ip other s { type ipv4_addr; }; delete table ip other")

    def _one(self, family: str) -> str:
        address = "10.96.10.10" if family == "ip" else "fd00:96::10"
        return f"delete element {family} kproxy cluster-ips {{ {address} }}"

    def _nft(self, script: str) -> None:
        """Run a script. It may fail, because its object may not exist."""
        self.running.kproxy.node.run(["nft", script], capture_output=True)

    # --- kproxy ---

    def sighup(self) -> None:
        if self.running.process.poll() is None and handles(self.running.process.pid, signal.SIGHUP):
            self.running.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        if self.running.process.poll() is None:
            self.running.stop(self.chance.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        self.running.start(wait=False)
