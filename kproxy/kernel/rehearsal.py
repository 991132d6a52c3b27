"""Loads kproxy's rules into a network namespace of its own, to learn what this kernel makes of them.

The kernel adds defaults to rules and declarations, and lists them in its own order. So kproxy compares its
table with what the kernel lists for the same rules in the other namespace. If the kernel refuses the rules,
the table in use does not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from kproxy.kernel.fresh_namespace import netfilter_socket
from kproxy.kernel.netlink.core.structure import table_message, table_removal, whole_table
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.kernel.structure import read_structure
from kproxy.model import Family
from kproxy.nft.ruleset import Skeleton
from kproxy.nft.structure import Structure, TableFlags
from kproxy.problems import HostError, TransactionError
from kproxy.table.layout import TABLE


class Rehearsal(AbstractContextManager["Rehearsal"]):
    """A network namespace for kproxy's rules. Created before threads start. For one thread at a time."""

    def __init__(self) -> None:
        self._netlink = Netlink(netfilter_socket)

    def close(self) -> None:
        """Close the socket, which ends the namespace."""
        self._netlink.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def expected_structure(self, skeleton: Skeleton) -> Structure:
        """Return the structure that the kernel has after loading `skeleton`.

        If this host cannot load it, the error names what is missing (`features.explain`).
        """
        try:
            with self._loaded(skeleton):
                structure = read_structure(self._netlink, skeleton)
        except NetlinkError as error:
            refused = TransactionError(f"The kernel refused kproxy's rules: {error.strerror}.")
            from kproxy.kernel.features import explain  # not at the top: few hosts lack something

            raise explain(self._netlink, skeleton, refused) from None
        if structure is None:
            raise HostError("The kernel accepted the ruleset, but does not list it.")
        return structure

    def can_own_tables(self) -> bool:
        """Whether a socket can own a table that stays when the socket is closed (Linux 6.9)."""
        try:
            self._netlink.commit([table_message(Family.IPV4, TABLE, TableFlags.OWNED)])
        except NetlinkError:
            return False
        self._netlink.commit([table_removal(Family.IPV4, TABLE)])
        return True

    @contextmanager
    def _loaded(self, skeleton: Skeleton) -> Iterator[None]:
        try:
            self._netlink.commit(whole_table(skeleton))
            yield
        finally:
            with suppress(NetlinkError):  # it does not exist if the kernel refused it
                self._netlink.commit([table_removal(skeleton.family, skeleton.table)])


def expected_structure(skeleton: Skeleton) -> Structure:
    """Return what `Rehearsal.expected_structure` does, from a namespace for this call only."""
    with Rehearsal() as rehearsal:
        return rehearsal.expected_structure(skeleton)
