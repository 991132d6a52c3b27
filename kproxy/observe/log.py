"""What a daemon says of its work: in its log, and to those who ask what went wrong last."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime

from kproxy.problems import KproxyError, Problem
from kproxy.reconcile.core.report import LINES, RoundReport, lines, summary
from kproxy.reconcile.observer import RoundObserver
from kproxy.show.snapshot import Failure

logger = logging.getLogger(__name__)
REMEMBERED = 50
"""Errors that can be asked for."""


class Reporter(RoundObserver):
    """Logs what changes: frontends as sync prints them, problems when they come and when they go."""

    def __init__(self, verbose: bool = False) -> None:
        self._limit = None if verbose else LINES
        self._problems: frozenset[Problem] = frozenset()
        self._failures: dict[str, str] = {}
        self._warnings: set[str] = set()
        """Since tables were last checked: what is still so is not said again."""
        self._unreachable: tuple[str, ...] = ()
        self._not_taken = ""
        self.last_errors: deque[Failure] = deque(maxlen=REMEMBERED)

    def round_failed(self, error: KproxyError) -> None:
        """Log why changes could not be taken in, once."""
        if error.full != self._not_taken:
            self.error("", error.full)
        self._not_taken = error.full

    def round_done(self, done: RoundReport) -> None:
        """Log what the round did, and what failed or works again since the last one."""
        if self._not_taken:
            logger.info("changes are taken in again")
            self._not_taken = ""
        for line in lines(done, self._limit):
            logger.info(line)
        if done.changed:
            logger.info("%s, in %.0f ms", summary(done), done.seconds * 1000)
        self._log_warnings(done)
        self._log_failures({str(family): why for family, why in done.failures.items()})

    def _log_warnings(self, done: RoundReport) -> None:
        for warning in sorted(set(done.warnings) - self._warnings):
            self.error("", warning)
        self._warnings = set(done.warnings) | (set() if done.compared else self._warnings)
        for message in (m for m in done.unreachable if m not in self._unreachable):
            self.error("", message)
        self._unreachable = done.unreachable

    def _log_failures(self, failures: dict[str, str]) -> None:
        for family, why in failures.items():
            if self._failures.get(family) != why:
                self.error("", f"table {family}: {why}")
        for family in self._failures.keys() - failures.keys():
            logger.info("table %s is right again", family)
        self._failures = failures

    def problems(self, problems: Collection[Problem]) -> None:
        """What is wrong with the input now, or may be. One that is about the same as before is not solved."""
        for problem in (problem for problem in problems if problem not in self._problems):
            logger.warning(problem)
        about = {problem._replace(message="") for problem in problems}
        for problem in sorted(self._problems.difference(problems)):
            if problem._replace(message="") not in about:
                logger.info("solved: %s", problem)
        self._problems = frozenset(problems)

    def error(self, about: str, message: str) -> None:
        """Something could not be done."""
        logger.error("%s", f"{about}: {message}" if about else message)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.last_errors.append(Failure(now, about, message))
