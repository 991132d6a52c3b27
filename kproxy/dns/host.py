"""What this host's resolv.conf says."""

from __future__ import annotations

from pathlib import Path

from kproxy.dns.core.resolv import ResolvConf, parse


def read_resolv_conf(path: Path) -> ResolvConf:
    """Read a resolv.conf. A file that does not exist or cannot be read is empty, as for resolvers."""
    try:
        return parse(path.read_text(errors="replace"))
    except OSError:
        return ResolvConf()
