"""Text of flags and configuration fields -> typed values.

Each parser raises ValueError with a message that contains the text and the expected form.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import NamedTuple, TypeVar

from msgspec import Struct

from kproxy.controlplane.ranges import Pool, parse_pool
from kproxy.model import Address, Network, format_address, node_name_of, parse_address
from kproxy.probes.core.command import CommandTemplate
from kproxy.resolve.frontends import merged

T = TypeVar("T")
INTERFACE = r"[\w.:@-]{1,15}"
SHORTEST_INTERVAL = 0.2
OLDEST_NFT = (1, 0, 6)
"""The oldest version of nft that loads kproxy's rules."""
OUTPUTS = ("wide", "name", "yaml", "json")
CONTENT_TYPES = ("application/vnd.kubernetes.protobuf", "application/json")
"""The formats in which an API server sends objects, the usual one first."""
RESOLVERS = ("systemd-resolved", "dnsmasq", "unbound")
OUTPUTS_WITH_ARGUMENT = {"jsonpath": "TEMPLATE", "custom-columns": "COLUMNS"}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_HOST_NAME = r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_QUANTITY = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"


class SocketAddress(Struct, frozen=True):
    """An address and a port. A wildcard of either family stands for both, as in kube-proxy."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def content_type(text: str) -> str:
    """Return one of CONTENT_TYPES. An empty text stands for the usual one, as in kube-proxy."""
    if text and text not in CONTENT_TYPES:
        raise ValueError(f"{text!r} is not one of {', '.join(CONTENT_TYPES)}")
    return text or CONTENT_TYPES[0]


def socket_address(text: str) -> SocketAddress | None:
    """Parse `0.0.0.0:10256` or `[::]:10256`; None for ""."""
    if not text:
        return None
    found = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*)):([0-9]+)", text)
    if not found or int(found[3]) > 65535:
        raise ValueError(f"{text!r} is not ADDRESS:PORT, with an IPv6 address in brackets")
    address = ip_address(found[1] if found[1] is not None else found[2])
    if (address.version == 6) != (found[1] is not None):
        raise ValueError(f"{text!r}: an IPv6 address must be in brackets, and an IPv4 address must not")
    return SocketAddress(str(address), int(found[3]))


def listen_address(text: str, port: int) -> SocketAddress | None:
    """Parse as `socket_address` does, or an address alone, which gets `port`."""
    try:
        return SocketAddress(str(ip_address(text)), port)
    except ValueError:
        return socket_address(text)


def socket_addresses(text: str) -> tuple[SocketAddress, ...]:
    """Parse `ADDRESS:PORT[,ADDRESS:PORT...]`. A wildcard is no address to answer from."""
    found = tuple(filter(None, map(socket_address, text.split(","))))
    if not found or any(ip_address(each.host).is_unspecified for each in found):
        raise ValueError(f"{text!r} is not ADDRESS:PORT[,ADDRESS:PORT...]; 0.0.0.0 and [::] are not allowed")
    return found


def two_ports(text: str) -> tuple[int, int]:
    """Parse two different port numbers: `80,443`."""
    parts = text.split(",")
    ports = [int(part) for part in parts if re.fullmatch(r"[0-9]{1,5}", part) and 0 < int(part) < 65536]
    if len(parts) != 2 or len(set(ports)) != 2:
        raise ValueError(f"{text!r} is not two different ports, for example 80,443")
    return ports[0], ports[1]


def host_names(text: str) -> tuple[str, ...]:
    """Parse `HOST[,HOST]`: DNS names, whose first label may be `*`."""
    names = tuple(text.lower().split(","))
    for name in names:
        if not re.fullmatch(_HOST_NAME, name) or len(name) > 253:
            raise ValueError(f"{name!r} is not a host name")
    return names


def upstreams(text: str) -> tuple[SocketAddress, ...]:
    """Parse `ADDRESS[:PORT][,...]`, with port 53 by default; () for ""."""
    return tuple(map(_upstream, text.split(","))) if text else ()


def _upstream(text: str) -> SocketAddress:
    try:
        return SocketAddress(format_address(parse_address(text.strip("[]"))), 53)
    except ValueError:
        found = socket_address(text)
        if found is None or not found.port:
            raise ValueError(f"{text!r} is not ADDRESS or ADDRESS:PORT") from None
        return found


def networks(text: str) -> tuple[Network, ...]:
    """Parse `CIDR[,CIDR...]`; () for "". As in kube-proxy, host bits are ignored.

    Networks that overlap are merged: nft refuses such intervals.
    """
    return () if not text else tuple(merged(ip_network(part, strict=False) for part in text.split(",")))


def nodeport_addresses(text: str) -> tuple[Network, ...] | None:
    """Parse `CIDR[,CIDR...]`, with `all` for every address and `localhost` for none; None for `primary`."""
    if not text:
        return None
    entries = [entry for entry in text.split(",") if entry != "localhost"]
    if "primary" in entries:
        if set(entries) != {"primary"}:
            raise ValueError("primary cannot be combined with other ranges")
        return None
    return networks(",".join("0.0.0.0/0,::/0" if entry == "all" else entry for entry in entries))


def network_per_family(text: str) -> tuple[Network, ...]:
    """Parse `CIDR[,CIDR]`: at most one of each family."""
    return _one_of_each_family(
        text, [(value, value.version) for value in map(ip_network, text.split(","))], "CIDR"
    )


def addresses(text: str) -> tuple[Address, ...]:
    """Parse `IP[,IP]`: at most one of each family."""
    values = [(value, len(value)) for value in map(parse_address, text.split(","))]
    for value, _ in values:
        if not any(value):
            raise ValueError(f"{format_address(value)} is not the address of a host")
    return _one_of_each_family(text, values, "address")


def bind_address(text: str) -> tuple[Address, ...] | None:
    """Parse kube-proxy's bind address; None for "", `0.0.0.0` and `::`, which stand for any address."""
    return None if not text or ip_address(text).is_unspecified else addresses(text)


def _one_of_each_family(text: str, values: Sequence[tuple[T, int]], noun: str) -> tuple[T, ...]:
    if len({family for _, family in values}) < len(values):
        raise ValueError(f"{text}: at most one {noun} of each family is allowed")
    return tuple(value for value, _ in values)


def domain(text: str) -> str:
    """Parse the name of a domain, in lower case and without a dot at its end."""
    from kproxy.dns.core.names import name_of  # few commands have a flag with a domain

    if name_of(text) is None:
        raise ValueError(f"{text!r} is not a domain name")
    return text.removesuffix(".").lower()


def address_pool(text: str) -> Pool:
    """Parse `RANGE[,RANGE...]`, each a CIDR or `FIRST-LAST`. Overlapping ranges are merged."""
    return parse_pool(text)


def port_range(text: str) -> tuple[int, int]:
    """Parse `FIRST-LAST`: ports, both inclusive."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last) <= 65535):
        raise ValueError(f"{text!r} is not FIRST-LAST within 1-65535")
    return int(first), int(last)


class EngineSocket(NamedTuple):
    """A container engine and the path of its socket."""

    engine: str
    socket: str

    def __str__(self) -> str:
        return f"{self.engine}={self.socket}"


ENGINES = {"podman": "/run/podman/podman.sock", "docker": "/var/run/docker.sock"}
"""The sockets of the engines that root runs."""


def engine(text: str) -> EngineSocket:
    """Parse `podman`, `docker`, or one of them with `=SOCKET`."""
    name, equals, path = text.partition("=")
    if name not in ENGINES:
        raise ValueError(f"{text!r} is not podman or docker, with or without =SOCKET")
    if equals and not path.startswith("/"):
        raise ValueError(f"{text!r}: SOCKET is an absolute path")
    return EngineSocket(name, path or ENGINES[name])


def port(text: str) -> int:
    """Parse a port."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def count(text: str) -> int:
    """Parse a number that is not negative."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def node_name(text: str) -> str:
    """Parse the name of a node. It becomes lower-case."""
    name = node_name_of(text)
    if not name:
        raise ValueError(f"{text!r} is not a name")
    return name


def node_names(text: str) -> tuple[str, ...]:
    """Parse `NAME[,NAME...]`, as names of nodes."""
    names = tuple(map(node_name_of, text.split(",")))
    if not all(names):
        raise ValueError(f"{text!r} is not NAME[,NAME...]")
    return names


def switch(text: str) -> bool:
    """Parse `true` or `false`, or one of Go's other spellings."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f"{text!r} is not true or false")


def interface_names(text: str) -> tuple[str, ...]:
    """Parse `NAME[,NAME...]`, as names of interfaces, which need not exist."""
    return tuple(map(interface_name, text.split(",")))


def interface_name(text: str) -> str:
    """Check the name of an interface, which need not exist."""
    if not re.fullmatch(INTERFACE, text):
        raise ValueError(f"{text!r} is not a valid interface name")
    return text


def duration(text: str) -> float:
    """Parse a duration in Go's format (`1h30m`, `250ms`, `0`). Returns seconds."""
    parts = re.findall(_QUANTITY, text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise ValueError(f"{text!r} is not a duration such as 30s or 1m30s")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def seconds(text: str) -> float:
    """Parse a duration in Go's format, or a number of seconds."""
    return float(text) if text.replace(".", "", 1).isdigit() else duration(text)


def interval(text: str) -> float:
    """Parse a time between two readings, like `seconds`."""
    found = seconds(text)
    if found < SHORTEST_INTERVAL:
        raise ValueError(f"{text!r} is less than {SHORTEST_INTERVAL} seconds")
    return found


def command_template(text: str) -> CommandTemplate:
    """Parse the name of a runner, or a command line with placeholders (probes/core/command.py)."""
    try:
        return CommandTemplate(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def nft_version(text: str) -> tuple[int, ...]:
    """Parse a version such as `1.0.6`. It must not be older than `OLDEST_NFT`."""
    parts = text.removeprefix("v").split(".")
    if not all(part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not a version such as 1.0.6")
    found = tuple(map(int, parts))
    if found < OLDEST_NFT:
        raise ValueError(f"{text} is too old: kproxy's rules need nft 1.0.6 or later")
    return found


def output_format(text: str) -> str:
    """Check a value of `-o`."""
    name, _, argument = text.partition("=")
    if name in OUTPUTS_WITH_ARGUMENT:
        if not argument:
            raise ValueError(f"{name} needs a value: {name}={OUTPUTS_WITH_ARGUMENT[name]}")
    elif text not in OUTPUTS:
        known = ", ".join((*OUTPUTS, *(f"{each}={value}" for each, value in OUTPUTS_WITH_ARGUMENT.items())))
        raise ValueError(f"{text!r} is not one of {known}")
    return text


def absolute_path(text: str) -> str:
    """Parse a path that begins with a slash."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not an absolute path")
    return text
