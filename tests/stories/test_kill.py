"""`kill -9` of a sync at any moment leaves the old or the new state, and the next sync completes it."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from netns_lab.lab import Lab
from netns_lab.topology import single

from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import Family
from kproxy.nft.elements import Elements
from kproxy.reconcile.dataplane import Dataplane
from kproxy.state.store import Store
from kproxy.table.compile import SETS
from kproxy.table.layout import (
    EndpointScope,
    FrontendKey,
    FrontendSide,
    PackedSocket,
    frontend_protocol,
    slot_endpoints,
)
from kproxy.table.skeleton import Options
from tests import forkserver
from tests.support import Kproxy, Manifest

pytestmark = pytest.mark.lab

KILLS = 50
SERVICES = 300
POOL = "--load-balancer-pool", "198.51.100.0/24,2001:db8:100::/120"


def manifests(version: int) -> list[Manifest]:
    """Services with all kinds of allocations. Every third one is only in one of two versions."""
    items: list[Manifest] = []
    for number in range(SERVICES):
        if number % 3 == version % 2:
            continue
        name, low = f"svc-{number}", number // 11
        wanted = {"clusterIPs": [f"10.96.0.{low + 1}", f"fd00:96::{low + 1:x}"]} if number % 11 == 0 else {}
        items.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {
                    "type": "LoadBalancer" if number % 4 == 0 else "NodePort",
                    "ipFamilyPolicy": "RequireDualStack",
                    "ports": [{"port": 80, **({"nodePort": 30000 + low} if wanted else {})}],
                    **wanted,
                    "sessionAffinity": "ClientIP" if number % 5 == 0 else "None",
                    "externalTrafficPolicy": "Local" if number % 7 == 0 else "Cluster",
                },
            }
        )
        for family, prefix in (
            (4, f"10.{version}.{number % 250}."),
            (6, f"fd00:{version}:{number}::"),
        ):
            addresses = [f"{prefix}{n}" for n in range(1, 2 + (number + version) % 4)]
            items.append(
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {"name": f"{name}-{family}", "labels": {"kubernetes.io/service-name": name}},
                    "addressType": f"IPv{family}",
                    "ports": [{"port": 8080}],
                    "endpoints": [
                        {"addresses": [address], "nodeName": f"n{1 + n % 2}"}
                        for n, address in enumerate(addresses)
                    ],
                }
            )
    return items


def slots(held: Elements, side: FrontendSide) -> tuple[PackedSocket | None, ...]:
    return slot_endpoints(held, side, frontend_protocol(side.key))


def programmed(kproxy: Kproxy, family: Family) -> Any:
    """Return what decides about packets of one family: frontends with endpoints, and the other sets."""

    def read() -> Any:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, family, Options())
            dataplane.read()
            held = dataplane.applied
            frontends = {
                side: (verdict, sorted(map(str, slots(held, side))))
                for scope in EndpointScope
                for key, verdict in held[scope.verdicts].items()
                for side in [FrontendSide(scope, FrontendKey(key))]
            }
            return frontends, {name: dict(held[name]) for name in SETS}

    return kproxy.node.inside(read)


def allocations(kproxy: Kproxy) -> dict[Any, Any]:
    with sqlite3.connect(kproxy.state / "allocations.sqlite") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    held = Store(kproxy.state).load().held
    assert len(set(held.values())) == len(held)
    return dict(held)


def test_kill_at_random_moments(tmp_path: Path) -> None:
    chance = random.Random(9)
    with Lab(single(0)) as lab:
        kproxy = Kproxy(lab.node("n1"), tmp_path / "state", flags=POOL)
        inputs, states = [], []
        for version in (0, 1):
            path = tmp_path / f"{version}.json"
            path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests(version)}))
            inputs.append(path)
            start = time.monotonic()
            kproxy.sync(*manifests(version))
            window = time.monotonic() - start
            states.append({family: programmed(kproxy, family) for family in Family})
        always = {c: r for c, r in allocations(kproxy).items() if int(c.service.name[4:]) % 3 == 2}
        outcomes = []
        for attempt in range(KILLS):
            version = attempt % 2
            line = kproxy.arguments("sync")
            line[line.index("-")] = str(inputs[version])
            with (tmp_path / "log").open("w") as log:
                process = forkserver.popen(kproxy.node, line, stdout=log, stderr=log)
                time.sleep(chance.uniform(0, window))
                process.kill()
                status = process.wait()
            assert status in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
            for family in Family:
                held = programmed(kproxy, family)
                assert held in (states[0][family], states[1][family]), f"attempt {attempt}, {family}"
                outcomes.append(held == states[version][family])
            window *= 0.9 if all(outcomes[-2:]) else 1.1  # so that half complete, even on a busy machine
            held_now = allocations(kproxy)
            assert always.items() <= held_now.items()
            if attempt % 5 == 4:
                kproxy.sync(*manifests(version))
                assert {family: programmed(kproxy, family) for family in Family} == states[version]
        assert len(set(outcomes)) == 2, "all kills came too early or all came too late"
