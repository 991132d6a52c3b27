"""How rounds are observed: by the log, health endpoints, metrics, systemd and the daemon itself."""

from __future__ import annotations

from kproxy.problems import KproxyError
from kproxy.reconcile.core.report import RoundReport


class RoundObserver:
    """The interface of observers. The methods are called in the event loop's thread. Here they do nothing."""

    def change_noticed(self) -> None:
        """Something may have changed. A round follows."""

    def round_started(self, services: int) -> None:
        """A round begins in which this number of services changed."""

    def round_done(self, done: RoundReport) -> None:
        """A round ended, with or without failures of tables."""

    def round_failed(self, error: KproxyError) -> None:
        """A round could not begin, because taking the changes from the source failed. It is tried again."""
