"""What the tables of a node ought to hold, worked out from a cluster's objects at once, and whether they do.

kproxy run arrives at its tables change by change. Here nothing is remembered: all objects are decoded,
resolved and compiled as `kproxy compile` does it, and compared with what the kernel lists over netlink.
"""

from __future__ import annotations

from collections.abc import Iterable

from netns_lab.lab import Handle
from netns_lab.topology import POD_NETWORK

from kproxy.decode import Document, decode
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.skeleton_probe import SkeletonProbe
from kproxy.model import Address, ClusterNode, Family, Node, parse_address
from kproxy.nft.structure import Structure
from kproxy.reconcile.core.repair import compare
from kproxy.reconcile.dataplane import Dataplane
from kproxy.resolve.frontends import all_frontends
from kproxy.settings.text import networks
from kproxy.table.compile import compile_frontends
from kproxy.table.layout import NUMBERED
from kproxy.table.plan import plan
from kproxy.table.skeleton import NumberedChains, Options, numbered_chains, skeleton
from tests.support import SERVICE_CIDRS, Manifest

PODS = networks(",".join(POD_NETWORK.values()))


class Truth:
    """Of one node; made before there are threads, since it forks (rehearsal.py)."""

    def __init__(self, node: Handle, pod_cidrs: str | None = None) -> None:
        """`pod_cidrs`: None for all pods', as `Kproxy` is told."""
        self._node = node
        self._addresses: tuple[Address, ...] = tuple(parse_address(a) for a in node.addresses.values())
        pods = PODS if pod_cidrs is None else networks(pod_cidrs)
        self.options = Options(pods, networks(SERVICE_CIDRS))
        self.node_ports: tuple[Address, ...] = self._addresses
        self._skeleton_probe = SkeletonProbe()
        self._expected: dict[tuple[Family, Options, NumberedChains], Structure] = {}

    def close(self) -> None:
        """End the child process."""
        self._skeleton_probe.close()

    def wrong(self, objects: Iterable[Manifest]) -> list[str]:
        """What differs from what these objects ask for; [] if nothing does."""
        state = decode(Document("truth", one) for one in objects).state
        known = state.nodes.get(self._node.name) or ClusterNode(self._node.name, "", ())
        here = Node(known.name, self.node_ports, self._addresses, known.zone, known.leaving)
        frontends = all_frontends(state.services.values(), state.slices, here).frontends
        found = []
        for family in Family:
            specs, elements = compile_frontends(frontends, family)
            dataplane, structure = self._node.inside(lambda family=family: self._read(family))  # type: ignore[misc]
            todo = plan(dataplane.applied, specs, elements)
            found += [f"{family}: {change}" for change in todo.changes]
            found += [
                f"{family}: {verb} {name}: {len(members)}"
                for step in (todo.switch, todo.sweep)
                for verb, what in (("lacks", step.add), ("should not have", step.remove))
                for name, members in what.items()
                if members
            ]
            repair = compare(structure, self._expect(family, numbered_chains(dataplane.applied)))
            found += [f"{family}: rules: {name}" for name in repair.damage]
            found += [f"{family}: lacks {name}" for name in repair.chains if NUMBERED.fullmatch(name)]
            if repair.replace:
                found.append(f"{family}: a declaration is wrong")
        return found

    def _read(self, family: Family) -> tuple[Dataplane, Structure | None]:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, family, self.options)
            return dataplane, dataplane.read()

    def _expect(self, family: Family, wanted: NumberedChains) -> Structure:
        key = family, self.options, wanted
        if key not in self._expected:
            rules = skeleton(family, self.options, wanted)
            self._expected[key] = self._skeleton_probe.expected_structure(rules)
        return self._expected[key]
