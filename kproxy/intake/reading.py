"""Reads files up to a limit, with memory for what they contain.

The `read` of a file object reserves memory for as many bytes as it may return. With a limit of 128 MiB, even
a short kubeconfig cannot be read that way if the address space is limited (`ulimit -v`, `LimitAS=`).
"""

from __future__ import annotations

from io import BytesIO
from typing import BinaryIO

PIECE = 1 << 16
"""The bytes to read at once."""


def read_up_to(file: BinaryIO, limit: int) -> bytes:
    """Read a buffered file to its end, but at most `limit` bytes. Raises OSError."""
    found = BytesIO()
    while wanted := min(PIECE, limit - found.tell()):
        if found.write(file.read(wanted)) < wanted:
            break
    return found.getvalue()
