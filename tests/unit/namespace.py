"""Run a function in a child process with a new network namespace, which ends with the process."""

from __future__ import annotations

import ctypes
import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


def in_fresh_namespace(work: Callable[[], T]) -> T:
    """Return the result of `work`. Raises AssertionError if it fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _report(writer, work)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "the child process died"
    result, failure = pickle.loads(data)
    assert not failure, failure
    return result  # type: ignore[no-any-return]


def _report(writer: int, work: Callable[[], T]) -> None:
    result, failure = None, ""
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        result = work()
    except BaseException:  # reported to the parent process
        failure = traceback.format_exc()
    with os.fdopen(writer, "wb") as pipe:
        pickle.dump((result, failure), pipe)
