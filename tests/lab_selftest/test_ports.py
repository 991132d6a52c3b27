"""A port that a test keeps is not given to others, and its own server can listen on it."""

import errno
import socket
from pathlib import Path

import pytest
from netns_lab.netns import in_fresh_namespace

from tests.ports import LOOPBACK, kept, number_of

pytestmark = pytest.mark.lab

ONLY = 40001


def outcomes() -> list[int]:
    """In a network namespace with one unused port: what others get while a test keeps it, and afterwards."""
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{ONLY} {ONLY}")

    def of_another() -> int:
        """The port that a server gets, or the number of the error."""
        try:
            with socket.create_server((LOOPBACK, 0)) as server:
                return number_of(server)
        except OSError as error:
            return error.errno or 0

    with kept() as own:
        found = [number_of(own), of_another()]
        with socket.create_server((LOOPBACK, ONLY)) as server:
            found.append(number_of(server))
        found.append(of_another())
    return [*found, of_another()]


def test_another_server_does_not_get_a_kept_port() -> None:
    assert in_fresh_namespace(outcomes) == [ONLY, errno.EADDRINUSE, ONLY, errno.EADDRINUSE, ONLY]
