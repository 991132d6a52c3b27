"""`kproxy dns serve`: the names of manifests, without tables and without `kproxy run`."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from pathlib import Path

from kproxy.daemon.loop import Loop, Periods, freeze_memory
from kproxy.daemon.running import enduring, run_until_signal
from kproxy.daemon.start import SWITCH_INTERVAL, configure_log
from kproxy.dns.nameserver import NameServer
from kproxy.intake.clients import Clients, raise_file_limit
from kproxy.intake.memory import return_memory
from kproxy.observe.log import Reporter
from kproxy.probes.exec import ExecRunner
from kproxy.problems import UsageError
from kproxy.reconcile.core.report import RoundReport, plural
from kproxy.reconcile.observer import RoundObserver
from kproxy.reconcile.reconciler import Reconciler
from kproxy.settings.derived import ranges
from kproxy.settings.settings import Settings
from kproxy.sources.configured import engines_of
from kproxy.sources.followed import FollowedManifests
from kproxy.sources.node import find_node
from kproxy.state.store import ReadOnlyStore
from kproxy.table.skeleton import Options

logger = logging.getLogger(__name__)


def serve_names(settings: Settings) -> int:
    """Serve until a signal. Returns the exit status."""
    if not settings.manifests or "-" in settings.manifests:
        raise UsageError("kproxy dns serve needs -f with files or folders that it can follow.")
    configure_log(settings.verbose)
    sys.setswitchinterval(SWITCH_INTERVAL)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    source = FollowedManifests(
        settings.manifests,
        ReadOnlyStore(Path(settings.state_dir)),
        ranges(settings),
        partial(find_node, settings),
        ExecRunner(settings.probe_exec),
        settings.recursive,
        engines=engines_of(settings),
    )
    reporter = Reporter(settings.verbose)
    server = NameServer(settings, settings.listen, source, Clients(raise_file_limit()))
    # Without tables, a round only takes the changes of the source.
    reconciler = Reconciler(source, {}, lambda node, service_cidrs: Options(), logger.warning)
    problems = _Problems(source, reporter)
    loop = Loop(source, reconciler, Periods(settings.sync_period, 0), (server, problems, reporter))

    def on_hangup() -> None:
        source.refresh()
        loop.wake()

    server.open()
    try:
        await run_until_signal((source.run(loop.wake), loop.run(), enduring(return_memory)), on_hangup)
    finally:
        server.close()


class _Problems(RoundObserver):
    """Logs the problems of the input after each round, and that the names are served."""

    def __init__(self, source: FollowedManifests, reporter: Reporter) -> None:
        self._source = source
        self._reporter = reporter
        self._ready = False

    def round_done(self, done: RoundReport) -> None:
        """Log what is new."""
        found = self._source.problems() + self._source.input_warnings() + self._source.warnings()
        self._reporter.problems(found)
        freeze_memory()
        if not self._ready:
            self._ready = True
            logger.info("kproxy is ready: %s", plural(len(done.names), "service"))
