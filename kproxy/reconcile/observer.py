"""How rounds are observed: by the log, health endpoints, metrics, systemd and the daemon itself."""

from __future__ import annotations

from kproxy.problems import KproxyError
from kproxy.reconcile.core.report import RoundReport


class RoundObserver:
    """Is told about rounds, in the event loop's thread. Here nothing is done with it."""

    def change_noticed(self) -> None:
        """Something may have changed; a round follows."""

    def round_started(self, services: int) -> None:
        """A round begins, in which so many services changed."""

    def round_done(self, done: RoundReport) -> None:
        """A round ended, with or without failures of tables."""

    def round_failed(self, error: KproxyError) -> None:
        """A round could not begin, since its changes could not be taken in; it is tried again."""
