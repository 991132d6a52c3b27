"""What goes wrong with a request, on demand.

A fault applies to the next `times` requests that it matches (None: to all, until it is taken away), and then
is spent. What can happen to a watch that is already open is in `watches`, to the whole server in `server`.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TypeAlias

from msgspec import Struct

from tests.apiserver.http import Connection, Cut
from tests.apiserver.status import ApiError

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Answer(Struct, frozen=True, tag="answer"):
    """This status, with a Status object, or with `text`, as a proxy on the way might answer."""

    code: int
    retry_after: int | None = None
    text: str | None = None
    message: str = "injected by the test"


class Delay(Struct, frozen=True, tag="delay"):
    """The answer comes later."""

    seconds: float


class Reset(Struct, frozen=True, tag="reset"):
    """RST after so many bytes of the answer: a list or a line of a watch that is torn off."""

    after: int = 0


class Silence(Struct, frozen=True, tag="silence"):
    """The request is taken, and nothing ever comes; the connection stays."""


class Trickle(Struct, frozen=True, tag="trickle"):
    """The answer comes in little pieces."""

    size: int = 1
    seconds: float = 0.01


Effect: TypeAlias = Answer | Delay | Reset | Silence | Trickle


class Fault(Struct):
    """An effect, and the requests that it hits; "" matches all."""

    effect: Effect
    verb: str = ""
    """get, list, watch, create, update, patch, delete."""
    resource: str = ""
    """Plural."""
    times: int | None = 1

    def matches(self, verb: str, resource: str) -> bool:
        return self.verb in ("", verb) and self.resource in ("", resource)


class Faults:
    """Those that are to come. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, effect: Effect, *, verb: str = "", resource: str = "", times: int | None = 1) -> Fault:
        """From now on; what is given back can be `remove`d."""
        fault = Fault(effect, verb, resource, times)
        self.append(fault)
        return fault

    def append(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def remove(self, fault: Fault) -> None:
        """Take it away; nothing happens if it is spent."""
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, verb: str, resource: str) -> list[Effect]:
        """The effects on a request: of all faults that match, up to the first that answers it."""
        effects: list[Effect] = []
        with self._lock:
            for fault in list(self._faults):
                if not fault.matches(verb, resource):
                    continue
                effects.append(fault.effect)
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self._faults.remove(fault)
                if isinstance(fault.effect, Answer | Silence):
                    break
        return effects


async def suffer(connection: Connection, effects: list[Effect]) -> bool:
    """Let effects come over a connection; whether the request is answered by that."""
    for effect in effects:
        match effect:
            case Delay(seconds=seconds):
                await asyncio.sleep(seconds)
            case Reset(after=0):
                raise Cut
            case Reset(after=after):
                connection.remaining = after
            case Trickle(size=size, seconds=seconds):
                connection.pace = size, seconds
            case Silence():
                await asyncio.Event().wait()
            case Answer(code=code, retry_after=retry_after, text=str(text)):
                headers = [("retry-after", str(retry_after))] if retry_after is not None else []
                await connection.answer(code, text.encode(), "text/html", headers)
                return True
            case Answer(code=code, retry_after=retry_after, message=message):
                raise ApiError(code, _REASONS.get(code, ""), message, retry_after=retry_after)
    return False
