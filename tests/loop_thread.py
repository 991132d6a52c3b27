"""An event loop in a thread of its own, for servers that tests command from their own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class LoopThread:
    """Runs coroutines in its thread, from `start` to `end`. `end` may come without `start`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.start = self._thread.start

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        unfinished = asyncio.all_tasks(self.loop)
        for task in unfinished:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*unfinished, return_exceptions=True))

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the thread, and return its result. Call it from other threads."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def end(self) -> None:
        """Cancel what still runs in the thread, end it, and close the loop."""
        if self.running:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
        self.loop.close()
