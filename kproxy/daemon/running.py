"""Runs what a daemon does at the same time, until a signal or an error ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine, Iterable
from typing import TypeAlias

from kproxy.problems import SHORTAGES

logger = logging.getLogger(__name__)
Job: TypeAlias = Coroutine[object, object, object]
"""What a daemon does all the time."""
SHORTAGE_SECONDS = 5.0
"""The pause after a shortage of files or memory."""
STOP = (signal.SIGTERM, signal.SIGINT)


async def enduring(begin: Callable[[], Job]) -> None:
    """Do a job, and begin it again after a pause if this host lacks files or memory for it."""
    while True:
        try:
            await begin()
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            logger.warning("this host lacks files or memory: %s; trying again", error)
        else:
            return
        await asyncio.sleep(SHORTAGE_SECONDS)


async def run_until_signal(jobs: Iterable[Job], on_hangup: Callable[[], None]) -> None:
    """Run the jobs until SIGTERM or SIGINT, or until one of them ends, which raises its error.

    SIGHUP calls `on_hangup`. While the jobs end, a second signal ends the process immediately.
    """
    events, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in STOP:
        events.add_signal_handler(number, stop.set)
    events.add_signal_handler(signal.SIGHUP, on_hangup)
    tasks = [asyncio.create_task(job) for job in (*jobs, stop.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for number in STOP:
            events.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        await task
