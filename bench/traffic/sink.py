"""A server in a pod. It accepts every connection, discards all data, and closes when the client does.

It is a separate process, so that it shares no interpreter with the client. It prints `ready` when it listens.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

BUFFER = 1 << 20


def main(port: int) -> None:
    """Serve one connection after the other, until killed."""
    buffer = bytearray(BUFFER)
    with socket.create_server(("", port), backlog=4096) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            # MSG_TRUNC: the kernel counts the bytes and copies none
            with connection, suppress(ConnectionError):
                while connection.recv_into(buffer, BUFFER, socket.MSG_TRUNC):
                    pass


if __name__ == "__main__":
    main(int(sys.argv[1]))
