"""The limits of what kproxy reads from other parties, in one place. docs/security.md has `TABLE`.

kproxy reads bytes that servers in pods, HTTP clients, an API server and DNS servers choose. Each reader
counts what it takes in, and gives up at a limit. Bytes are counted as they arrive, in TLS and compressed.
"""

from __future__ import annotations

from typing import NamedTuple

KIB, MIB = 1 << 10, 1 << 20

# --- responses to readiness probes ---

PROBE_BYTES = 256 * KIB
PROBE_CHUNK = 4 * KIB
"""Bytes to read at once. So one turn takes a few milliseconds at most."""
PROBE_HEAD = 64 * KIB
PROBE_HEAD_LINES = 500
PROBE_INFORMATIONAL = 5
PROBE_BODY = 10 * KIB
PROBE_BODY_PIECES = 100
PROBE_REDIRECTS = 10
PROBE_CPU = 0.05
PROBE_COSTLY = 0.01
PROBE_COSTLY_SLOTS = 8
PROBE_COSTLY_SHARE = 0.1
PROBE_CONNECTIONS = 256
PROBE_COMMANDS = 32
PROBE_OUTPUT = 10 * KIB

# --- names of hosts in probes ---

NAME_LOOKUPS = 128
NAME_ADDRESSES = 8


class Limit(NamedTuple):
    """A row of the table: what a limit is for, and what happens at it."""

    reader: str
    """The heading of the group of rows."""
    what: str
    value: float
    unit: str
    """bytes, s, % of a CPU; "" for a number of items."""
    then: str


_PROBES = "Responses to readiness probes"
_NAMES = "DNS answers for host names in probes"
_FAILS = "the probe fails"

TABLE = (
    Limit(
        _PROBES, "received, over all redirects", PROBE_BYTES, "bytes", "the probe fails, or the status counts"
    ),
    Limit(_PROBES, "status line and headers", PROBE_HEAD, "bytes", _FAILS),
    Limit(_PROBES, "lines of headers", PROBE_HEAD_LINES, "", _FAILS),
    Limit(_PROBES, "informational responses (1xx)", PROBE_INFORMATIONAL, "", _FAILS),
    Limit(_PROBES, "body", PROBE_BODY, "bytes", "the rest is not read; the status counts"),
    Limit(_PROBES, "pieces of the body", PROBE_BODY_PIECES, "", "the rest is not read; the status counts"),
    Limit(_PROBES, "redirects", PROBE_REDIRECTS, "", _FAILS),
    Limit(_PROBES, "read at once", PROBE_CHUNK, "bytes", "other tasks of kproxy have their turn"),
    Limit(_PROBES, "CPU time of one probe", PROBE_CPU, "s", _FAILS),
    Limit(
        _PROBES,
        "CPU time after which a probe is costly",
        PROBE_COSTLY,
        "s",
        "it is repeated with pauses, apart from other probes",
    ),
    Limit(_PROBES, "costly probes at the same time", PROBE_COSTLY_SLOTS, "", "probes wait for each other"),
    Limit(
        _PROBES, "all costly probes together", 100 * PROBE_COSTLY_SHARE, "% of a CPU", "they run less often"
    ),
    Limit(_PROBES, "connections at the same time", PROBE_CONNECTIONS, "", "probes wait for each other"),
    Limit(_PROBES, "commands at the same time", PROBE_COMMANDS, "", "probes wait for each other"),
    Limit(_PROBES, "output of a command", PROBE_OUTPUT, "bytes", "the rest is discarded"),
    Limit(_NAMES, "names looked up at the same time", NAME_LOOKUPS, "", _FAILS),
    Limit(_NAMES, "addresses of a name", NAME_ADDRESSES, "", "the others are not used"),
)
