"""The socket to netfilter stays usable, whatever the kernel answers."""

from __future__ import annotations

import errno

import pytest

from kproxy.kernel.netlink.core.batch import element_messages
from kproxy.kernel.netlink.core.constants import NFT_MSG_NEWSETELEM
from kproxy.kernel.netlink.socket import Netlink, NetlinkError
from kproxy.model import Family
from kproxy.nft.elements import Verdict
from kproxy.table.names import SetName
from tests.unit.namespace import in_fresh_namespace

pytestmark = pytest.mark.lab


def test_a_large_transaction_of_which_everything_is_refused() -> None:
    """Another one may have taken the table away: each of its messages has an answer."""

    def refused() -> tuple[int | None, int]:
        members = {number.to_bytes(12, "big"): Verdict("goto lb-3", "a/b") for number in range(700)}
        (one,) = element_messages(NFT_MSG_NEWSETELEM, Family.IPV4, SetName.SERVICES, members)
        with Netlink() as netlink:
            try:
                netlink.commit([one] * 300)  # 15 MB; the socket's buffer has room for 8
            except NetlinkError as error:
                return error.errno, netlink.generation()
        raise AssertionError("it was taken")

    assert in_fresh_namespace(refused) == (errno.ENOENT, 1)
