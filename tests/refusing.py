"""kproxy with a kernel that refuses some Services: `python -m tests.refusing FILE VERB FLAG...`.

FILE contains addresses, one per line. The frontends with these addresses are refused; without the file, none
are. The program sends their map elements without a value, which the kernel does not accept. So the refusal,
its error and the name of the element come from the kernel. With KPROXY_TEST_UNNAMED in the environment, the
names are removed from the kernel's answer, as if the kernel did not report them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

from msgspec.structs import replace

from kproxy import cli
from kproxy.kernel.netlink.core.codec import Batch, BatchMessage, Message, Result, attributes, nested, string
from kproxy.kernel.netlink.core.constants import (
    NFT_MSG_NEWSETELEM,
    NFTA_SET_ELEM_LIST_ELEMENTS,
    NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE,
)
from kproxy.kernel.netlink.core.elements import pack_elements, read_element
from kproxy.kernel.netlink.socket import Netlink
from kproxy.model import parse_address
from kproxy.table.layout import TABLE, SetName

MAPS = (SetName.SERVICES, SetName.ENDPOINTS_TCP)


def spoiled(message: BatchMessage, addresses: tuple[bytes, ...]) -> BatchMessage:
    """Return the message. Elements of frontends with these addresses lose their values."""
    fields = {kind: bytes(content) for kind, content in attributes(memoryview(message.body))}
    name = fields.get(NFTA_SET_ELEM_LIST_SET, b"").rstrip(b"\0").decode()
    if message.kind != NFT_MSG_NEWSETELEM or name not in MAPS:
        return message
    elements = attributes(memoryview(fields[NFTA_SET_ELEM_LIST_ELEMENTS]))
    members = dict(read_element(element) for _, element in elements)
    members.update((key, b"") for key in members if key.startswith(addresses))
    head = string(NFTA_SET_ELEM_LIST_TABLE, TABLE) + string(NFTA_SET_ELEM_LIST_SET, name)
    body = head + nested(NFTA_SET_ELEM_LIST_ELEMENTS, b"".join(pack_elements(members)))
    return message._replace(body=body)


def main(file: Path, arguments: list[str], named: bool) -> int:
    """Run kproxy. Returns its exit status."""
    commit, read = Netlink.commit, Batch.read

    def spoil(netlink: Netlink, contents: Iterable[BatchMessage]) -> int:
        addresses = tuple(map(parse_address, file.read_text().split())) if file.exists() else ()
        return commit(netlink, (spoiled(message, addresses) for message in contents))

    def read_unnamed(batch: Batch, replies: Iterable[Message]) -> Result:
        return replace(read(batch, replies), refused=())

    with patch.object(Netlink, "commit", spoil), patch.object(Batch, "read", read if named else read_unnamed):
        return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:], "KPROXY_TEST_UNNAMED" not in os.environ))
