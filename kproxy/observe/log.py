"""Writes the log of `kproxy run`, and keeps the last errors for `kproxy describe`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from kproxy.limits import PROBLEMS_LOGGED
from kproxy.printable import one_line, printable
from kproxy.problems import KproxyError, Problem
from kproxy.reconcile.core.report import LINES, RoundReport, lines, summary
from kproxy.reconcile.observer import RoundObserver
from kproxy.show.snapshot import Failure

logger = logging.getLogger(__name__)
LAST_ERRORS = 50
"""The number of errors to keep."""


class LogFormatter(logging.Formatter):
    """Formats each record as one line of a limited length, except for the traceback of an exception."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the first line."""
        record.message = one_line(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        """Return the lines of a traceback, indented, so that no line of it looks like a record."""
        return "\n".join(f"  {printable(line)}" for line in super().formatException(ei).split("\n"))


class Reporter(RoundObserver):
    """Logs changes of frontends in the form that sync prints, and problems when they appear and disappear."""

    def __init__(self, verbose: bool = False) -> None:
        self._limit = None if verbose else LINES
        self._problems: frozenset[Problem] = frozenset()
        self._failures: dict[str, str] = {}
        self._warnings: set[str] = set()
        """Warnings since the last full comparison. They are not logged again."""
        self._address_failures: tuple[str, ...] = ()
        self._round_error = ""
        self.last_errors: deque[Failure] = deque(maxlen=LAST_ERRORS)

    def round_failed(self, error: KproxyError) -> None:
        """Log why a round could not begin, once for each reason."""
        if error.full != self._round_error:
            self.error("", error.full)
        self._round_error = error.full

    def round_done(self, done: RoundReport) -> None:
        """Log what the round did, and what failed or recovered since the last one."""
        if self._round_error:
            logger.info("recovered: changes are applied again")
            self._round_error = ""
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
        for message in (m for m in done.address_failures if m not in self._address_failures):
            self.error("", message)
        self._address_failures = done.address_failures

    def _log_failures(self, failures: dict[str, str]) -> None:
        for family, why in failures.items():
            if self._failures.get(family) != why:
                self.error("", f"table {family}: {why}")
        for family in self._failures.keys() - failures.keys():
            logger.info("table %s: recovered", family)
        self._failures = failures

    def problems(self, problems: Collection[Problem], notices: Collection[Problem] = ()) -> None:
        """Log new problems of the input, and solved ones. A problem whose message changed is not solved.

        `notices` are normal on some nodes of a cluster, so their level is INFO.
        """
        for level, found in ((logging.WARNING, problems), (logging.INFO, notices)):
            new = [problem for problem in found if problem not in self._problems]
            for problem in new[:PROBLEMS_LOGGED]:
                logger.log(level, "%s", problem)
            if len(new) > PROBLEMS_LOGGED:
                logger.log(level, "and %d more, which `kproxy get` prints", len(new) - PROBLEMS_LOGGED)
        problems = [*problems, *notices]
        fields = {problem._replace(message="") for problem in problems}
        gone = sorted(self._problems.difference(problems))
        solved = [problem for problem in gone if problem._replace(message="") not in fields]
        for problem in solved[:PROBLEMS_LOGGED]:
            logger.info("solved: %s", problem)
        if len(solved) > PROBLEMS_LOGGED:
            logger.info("solved: %d more", len(solved) - PROBLEMS_LOGGED)
        self._problems = frozenset(problems)

    def error(self, subject: str, message: str) -> None:
        """Log an error, and keep it in `last_errors`. `subject` is the object that it is about, or ""."""
        logger.error("%s", f"{subject}: {message}" if subject else message)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self.last_errors.append(Failure(now, subject, message))
