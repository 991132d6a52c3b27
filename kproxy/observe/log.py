"""What a daemon says of its work: in its log, and to those who ask what went wrong last."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime

from kproxy.daemon.loop import Progress
from kproxy.problems import KproxyError, Problem
from kproxy.reconcile.core.report import LINES, lines, summary
from kproxy.show.snapshot import Failure

logger = logging.getLogger(__name__)
REMEMBERED = 50
"""Errors that can be asked for."""


class Reporter:
    """Logs what changes: frontends as sync prints them, problems when they come and when they go."""

    def __init__(self, verbose: bool = False) -> None:
        self._limit = None if verbose else LINES
        self._problems: frozenset[Problem] = frozenset()
        self._failures: dict[str, str] = {}
        self._warnings: set[str] = set()
        """Since tables were last checked: what is still so is not said again."""
        self._not_taken = ""
        self.last_errors: deque[Failure] = deque(maxlen=REMEMBERED)

    def failed(self, error: KproxyError) -> None:
        """What changed could not be taken in."""
        if error.full != self._not_taken:
            self.error("", error.full)
        self._not_taken = error.full

    def progress(self, progress: Progress) -> None:
        """A round is done."""
        if self._not_taken:
            logger.info("changes are taken in again")
            self._not_taken = ""
        reports = progress.round.reports
        for line in lines(reports, self._limit):
            logger.info(line)
        if any(reports):
            logger.info("%s, in %.0f ms", summary(reports), progress.seconds * 1000)
        warnings = {warning for report in reports for warning in report.warnings}
        for warning in sorted(warnings - self._warnings):
            self.error("", warning)
        self._warnings = warnings | (set() if progress.round.checked else self._warnings)
        failures = {str(family): why for family, why in progress.round.failures.items()}
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
