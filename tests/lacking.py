"""kproxy with a kernel that lacks a feature: `python -m tests.lacking WORD[@FAMILY] VERB FLAG...`.

In each message to the kernel, the name of the expression WORD is replaced by one that no kernel knows; with
`@ip6`, only in messages about tables of this family. The word `owner` adds a flag that no kernel knows to the
flags of an owned table. So the refusal and its error come from the kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from unittest.mock import patch

from kproxy import cli
from kproxy.kernel.netlink.core.codec import BatchMessage, be32
from kproxy.kernel.netlink.core.constants import NFTA_TABLE_FLAGS
from kproxy.kernel.netlink.socket import Netlink
from kproxy.nft.structure import TableFlags

UNKNOWN_FLAG = 1 << 30


def main(word: str, family: str, arguments: list[str]) -> int:
    """Run kproxy. Returns its exit status."""
    commit, known, unknown = Netlink.commit, word.encode() + b"\0", word[:-1].encode() + b"X\0"
    if word == "owner":
        known, unknown = (be32(NFTA_TABLE_FLAGS, TableFlags.OWNED | more) for more in (0, UNKNOWN_FLAG))

    def lacking(message: BatchMessage) -> BatchMessage:
        if family and message.family != family:
            return message
        return message._replace(body=message.body.replace(known, unknown))

    def send(netlink: Netlink, contents: Iterable[BatchMessage]) -> int:
        return commit(netlink, map(lacking, contents))

    with patch.object(Netlink, "commit", send):
        return cli.main(arguments)


if __name__ == "__main__":
    name, _, only = sys.argv[1].partition("@")
    sys.exit(main(name, only, sys.argv[2:]))
