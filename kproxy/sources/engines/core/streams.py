"""The output of a command in a container, as the engine sends it: frames of its two streams. Pure."""

from __future__ import annotations

HEADER = 8
"""The stream, three zeros, and four bytes of length."""


class Streams:
    """Takes the bytes of frames, and keeps the beginning of the output."""

    def __init__(self, limit: int) -> None:
        self.output = bytearray()
        """Of both streams, at most `limit` bytes."""
        self._limit = limit
        self._header = bytearray()
        self._left = 0
        """The bytes that the present frame still has."""

    def add(self, data: bytes) -> None:
        """Take further bytes. They may end within a frame, or within its header."""
        while data:
            if not self._left:
                taken = data[: HEADER - len(self._header)]
                self._header += taken
                data = data[len(taken) :]
                if len(self._header) == HEADER:
                    self._left = int.from_bytes(self._header[4:], "big")
                    self._header.clear()
                continue
            taken, data = data[: self._left], data[self._left :]
            self._left -= len(taken)
            self.output += taken[: self._limit - len(self.output)]
