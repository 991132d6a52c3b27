"""Which addresses the name server of `kproxy run` has."""

from __future__ import annotations

import logging
from collections.abc import Collection

from kproxy.model import Address, NamespacedName, format_address
from kproxy.sources.source import FollowedSource

logger = logging.getLogger(__name__)


class NameServerAddresses:
    """The addresses in --cluster-dns that are not a ClusterIP of a Service, for example of a CoreDNS."""

    def __init__(self, wanted: Collection[Address], source: FollowedSource) -> None:
        self._wanted = tuple(wanted)
        self._source = source
        self._revision: int | None = None
        self._taken: dict[Address, NamespacedName] = {}

    def current(self) -> tuple[Address, ...]:
        """Return the addresses, as of the last `take` of the source."""
        if self._wanted and self._revision != self._source.revision:
            self._revision = self._source.revision
            before, self._taken = self._taken, self._find_taken()
            for address, owner in self._taken.items():
                if before.get(address) != owner:
                    text = format_address(address)
                    logger.warning("%s is the ClusterIP of Service %s: no DNS is served on it", text, owner)
        return tuple(address for address in self._wanted if address not in self._taken)

    def _find_taken(self) -> dict[Address, NamespacedName]:
        services = filter(None, map(self._source.service, self._source.names()))
        return {
            address: service.name
            for service in services
            for address in service.cluster_ips
            if address in self._wanted
        }
