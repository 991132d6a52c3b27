"""Serves the status page on the address of health checks.

The page names Services and endpoints, so it is not for everyone who may ask for health: only connections to a
loopback address get it, unless `--healthz-bind-address` is on the command line. A page of another site in the
operator's browser must not read it either. Such a page can let its own name lead to 127.0.0.1, so the header
Host must be an address, or a name of this host.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from ipaddress import IPv6Address, ip_address

from kproxy import __version__
from kproxy.observe.doctor import Doctor
from kproxy.observe.http import NOT_FOUND, Request, Response
from kproxy.picture.status import STYLE, Findings, Now, Refused, status_page
from kproxy.settings.derived import StatusAccess
from kproxy.show.snapshot import Snapshot

KEPT_SECONDS = 2.0
"""How long clients get the same page."""
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)
OTHER_HOST = Response(
    421, (("Content-Type", "text/plain; charset=utf-8"),), b"use an address, or a name of this host\n"
)


class StatusPage:
    """Makes the page on request. Use it in the event loop's thread."""

    path = "/"

    def __init__(
        self,
        snapshot: Callable[[], Awaitable[Snapshot]],
        access: StatusAccess,
        refused: Callable[[], Refused] = dict,
    ) -> None:
        """`refused` returns the numbers of refused connections, and is called in another thread."""
        self._snapshot = snapshot
        self._refused = refused
        self._access = access
        self._doctor = Doctor(access.state_dir)
        self._page: asyncio.Task[Response] | None = None
        self._made = 0.0

    def handle(self, request: Request) -> Response | Awaitable[Response]:
        """Return the page, or why the client does not get it."""
        if not (self._access.everywhere or is_loopback(request.address)):
            return NOT_FOUND
        if not is_own_name(request.host, self._access.names):
            return OTHER_HOST
        if self._page is None or (self._page.done() and time.monotonic() > self._made + KEPT_SECONDS):
            self._page = asyncio.create_task(self._make())
        return asyncio.shield(self._page)

    def close(self) -> None:
        """End what is being made."""
        self._doctor.close()
        if self._page is not None:
            self._page.cancel()

    async def _make(self) -> Response:
        findings = await self._doctor.findings()
        snapshot = await self._snapshot()
        body = await asyncio.to_thread(self._body, snapshot, findings)
        self._made = time.monotonic()
        return Response(200, HEADERS, body)

    def _body(self, snapshot: Snapshot, findings: Findings) -> bytes:
        now = datetime.now(UTC)
        when = Now(now.timestamp(), now.strftime("%Y-%m-%d %H:%M:%S UTC"), __version__)
        return status_page(snapshot, findings, when, self._refused())


def is_loopback(address: str) -> bool:
    """Whether it is an address of the loopback interface, perhaps in the form `::ffff:127.0.0.1`."""
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback


def is_own_name(host: str, names: tuple[str, ...]) -> bool:
    """Whether a header Host has an address, localhost, or one of `names`. Browsers always send one."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("", "localhost", *map(str.lower, names)):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
