"""Work in a network namespace that lives as long as it takes: a child process, and nothing to clean up."""

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
    """The result of `work`, run by a child process alone in a namespace; AssertionError if it fails."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _answer(writer, work)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    assert data, "the child process died"
    result, failure = pickle.loads(data)
    assert not failure, failure
    return result  # type: ignore[no-any-return]


def _answer(writer: int, work: Callable[[], T]) -> None:
    result, failure = None, ""
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        result = work()
    except BaseException:  # an error of any kind is the answer
        failure = traceback.format_exc()
    with os.fdopen(writer, "wb") as pipe:
        pickle.dump((result, failure), pipe)
