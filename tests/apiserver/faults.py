"""Faults of requests, on demand.

A fault applies to the next `times` requests that match it (None: to all, until it is removed). Faults of open
watches are in `watches`, and faults of the whole server in `server`.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TypeAlias

from msgspec import Struct

from tests.apiserver.http import Connection, Cut
from tests.apiserver.status import ApiError

POLL = 0.005
"""Seconds until a held request looks again whether it is released."""
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
    """Answer with this status and a Status object, or with `text`, as a proxy might answer."""

    code: int
    retry_after: int | None = None
    text: str | None = None
    message: str = "injected by the test"


class Delay(Struct, frozen=True, tag="delay"):
    """Delay the answer."""

    seconds: float


class Hold(Struct, frozen=True, tag="hold"):
    """Delay the answer until `Faults.release` is called with this name."""

    name: str


class Reset(Struct, frozen=True, tag="reset"):
    """Send a RST after so many bytes of the answer, which cuts off a list or a line of a watch."""

    after: int = 0


class Silence(Struct, frozen=True, tag="silence"):
    """Accept the request and never answer. The connection stays open."""


class Trickle(Struct, frozen=True, tag="trickle"):
    """Send the answer in small pieces."""

    size: int = 1
    seconds: float = 0.01


class Flood(Struct, frozen=True, tag="flood"):
    """Send these bytes instead of an answer, then a part again and again until the faults are cleared."""

    head: bytes
    part: bytes = b""
    seconds: float = 0.0
    """The pause after each part."""


Effect: TypeAlias = Answer | Delay | Hold | Reset | Silence | Trickle | Flood


class Fault(Struct):
    """An effect, and the requests that it applies to; "" matches all."""

    effect: Effect
    verb: str = ""
    """get, list, watch, create, update, patch, delete."""
    resource: str = ""
    """Plural."""
    times: int | None = 1

    def matches(self, verb: str, resource: str) -> bool:
        return self.verb in ("", verb) and self.resource in ("", resource)


class Faults:
    """The pending faults. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.cleared = 0
        """How often all faults were removed."""
        self.released: set[str] = set()
        """The names of holds that have ended."""

    def add(self, effect: Effect, *, verb: str = "", resource: str = "", times: int | None = 1) -> Fault:
        """Add a fault. Returns it, for `remove`."""
        fault = Fault(effect, verb, resource, times)
        self.append(fault)
        return fault

    def append(self, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)

    def remove(self, fault: Fault) -> None:
        """Remove a fault, if it is still pending."""
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]

    def release(self, name: str) -> None:
        """End a hold."""
        self.released.add(name)

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()
            self.cleared += 1

    def take(self, verb: str, resource: str) -> tuple[list[Effect], int]:
        """Return the effects on a request: of all matching faults, up to the first that answers it.

        Also returns how often the faults had been cleared then.
        """
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
                if isinstance(fault.effect, Answer | Silence | Flood):
                    break
            return effects, self.cleared


async def apply(connection: Connection, taken: tuple[list[Effect], int], faults: Faults) -> bool:
    """Apply what was taken from the faults to a connection. Returns whether that has answered the request."""
    effects, cleared = taken
    for effect in effects:
        match effect:
            case Delay(seconds=seconds):
                await asyncio.sleep(seconds)
            case Hold(name=name):
                while name not in faults.released:
                    await asyncio.sleep(POLL)
            case Reset(after=0):
                raise Cut
            case Reset(after=after):
                connection.remaining = after
            case Trickle(size=size, seconds=seconds):
                connection.pace = size, seconds
            case Flood(head=head, part=part, seconds=seconds):
                await connection.emit(head)
                while part and faults.cleared == cleared:
                    await connection.emit(part)
                    await asyncio.sleep(seconds)
                return True
            case Silence():
                await asyncio.Event().wait()
            case Answer(code=code, retry_after=retry_after, text=str(text)):
                headers = [("retry-after", str(retry_after))] if retry_after is not None else []
                await connection.answer(code, text.encode(), "text/html", headers)
                return True
            case Answer(code=code, retry_after=retry_after, message=message):
                raise ApiError(code, _REASONS.get(code, ""), message, retry_after=retry_after)
    return False
