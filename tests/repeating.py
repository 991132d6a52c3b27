"""Work that is done again and again beside a test, such as clients that send without pause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(*works: Callable[[], object], pause: float = 0) -> Iterator[None]:
    """Do each work again and again until the block ends, in a thread of its own.

    `pause`: the seconds after each time.
    """
    over = threading.Event()

    def repeat(work: Callable[[], object]) -> None:
        while not over.is_set():
            work()
            over.wait(pause)

    threads = [threading.Thread(target=repeat, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
