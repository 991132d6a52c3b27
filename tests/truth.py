"""Computes from a cluster's objects what the tables of a node must contain, and compares them.

`kproxy run` changes its tables step by step. Here all objects are decoded, resolved and compiled at once, as
`kproxy compile` does it, and the result is compared with the elements that the kernel lists over netlink.
"""

from __future__ import annotations

from collections.abc import Iterable

from netns_lab.lab import Handle
from netns_lab.topology import POD_NETWORK

from kproxy.decode import Document, decode
from kproxy.kernel.netlink.socket import Netlink
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.model import Address, ClusterNode, Family, Node, parse_address
from kproxy.nft.structure import Structure
from kproxy.reconcile.core.repair import compare
from kproxy.reconcile.dataplane import Dataplane
from kproxy.resolve.claims import all_frontends
from kproxy.settings.text import networks
from kproxy.table.compile import compile_frontends
from kproxy.table.layout import is_numbered
from kproxy.table.plan import plan
from kproxy.table.skeleton import NumberedChains, Options, numbered_chains, skeleton
from tests.support import SERVICE_CIDRS, Manifest

PODS = networks(",".join(POD_NETWORK.values()))


class Truth:
    """Compares the tables of one node. Created before threads start, since it forks (rehearsal.py)."""

    def __init__(self, node: Handle, pod_cidrs: str | None = None) -> None:
        """`pod_cidrs`: None for the networks of all pods, as `Kproxy` has them."""
        self._node = node
        self._addresses: tuple[Address, ...] = tuple(parse_address(a) for a in node.addresses.values())
        pods = PODS if pod_cidrs is None else networks(pod_cidrs)
        self.options = Options(pods, networks(SERVICE_CIDRS))
        self.node_ports: tuple[Address, ...] = self._addresses
        self._rehearsal = Rehearsal()
        self._expected: dict[tuple[Family, Options, NumberedChains], Structure] = {}

    def close(self) -> None:
        """End the network namespace of the rehearsal."""
        self._rehearsal.close()

    def wrong(self, objects: Iterable[Manifest]) -> list[str]:
        """Return the differences between the tables and these objects; [] if there are none."""
        state = decode(Document("truth", one) for one in objects).state
        found_node = state.nodes.get(self._node.name) or ClusterNode(self._node.name, "", ())
        node = Node(found_node.name, self.node_ports, self._addresses, found_node.zone, found_node.leaving)
        frontends = all_frontends(state.services.values(), state.slices, node).frontends
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
            found += [f"{family}: lacks {name}" for name in repair.chains if is_numbered(name)]
            if repair.replace:
                found.append(f"{family}: a declaration is wrong")
        return found

    def _read(self, family: Family) -> tuple[Dataplane, Structure | None]:
        with Netlink() as netlink:
            dataplane = Dataplane(netlink, family, self.options)
            return dataplane, dataplane.read()

    def _expect(self, family: Family, chains: NumberedChains) -> Structure:
        key = family, self.options, chains
        if key not in self._expected:
            rules = skeleton(family, self.options, chains)
            self._expected[key] = self._rehearsal.expected_structure(rules)
        return self._expected[key]
