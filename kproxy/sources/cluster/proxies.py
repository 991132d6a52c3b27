"""Finds the proxy for a URL in the environment: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, in both cases."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

_WITH_PORT = re.compile(r"(\[.*\]|[^:]*):([0-9]+)")


def proxy_of_environment(url: str) -> str | None:
    """Return the URL of the proxy for `url`; None for no proxy."""
    parts = urlsplit(url)
    proxy = _variable(f"{parts.scheme}_proxy") or _variable("all_proxy")
    excluded = filter(None, (entry.strip() for entry in _variable("no_proxy").split(",")))
    if not proxy or any(_covers(entry, parts.hostname or "", parts.port) for entry in excluded):
        return None
    return proxy


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.upper()) or ""


def _covers(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY is this host: a name, a domain, an address, a network, or `*`."""
    if found := _WITH_PORT.fullmatch(entry):
        if int(found[2]) != port:
            return False
        entry = found[1]
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        domain = entry.removeprefix("*").lstrip(".").lower()
        return entry == "*" or host == domain or host.endswith(f".{domain}")
