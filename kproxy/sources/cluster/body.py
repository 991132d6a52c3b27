"""Reads the bodies of responses, in pieces and within limits. It decompresses them itself.

A few bytes of gzip become gigabytes. So a piece has a limit, other tasks have their turn after each piece,
and the reader can stop after any of them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator

from kproxy.intake.requests import Response
from kproxy.limits import API_ERROR, API_PAGE, API_PAGE_SECONDS, API_PIECE, MIB
from kproxy.sources.cluster.core.events import InvalidResponseError, LimitError

GZIP = 16 + zlib.MAX_WBITS


async def pieces(response: Response) -> AsyncIterator[bytes]:
    """Return the body as it arrives. Raises InvalidResponseError and OSError."""
    split = _splitter(response.header("content-encoding") or "identity")
    async for data in response.pieces():
        for piece in split(data):
            yield piece
            await asyncio.sleep(0)
    if isinstance(split, _Gunzip) and not split.ended:
        raise InvalidResponseError("the compressed response is incomplete")


async def read(response: Response) -> bytearray:
    """Return a whole body. Errors as of `pieces`; LimitError if it is too long or takes too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(API_PAGE_SECONDS) as limit:
            async for piece in pieces(response):
                body += piece
                if max(len(body), response.received) > API_PAGE:
                    raise LimitError(f"the response is longer than {API_PAGE // MIB} MiB")
    except TimeoutError:
        if limit.expired():
            raise LimitError(f"the response takes longer than {API_PAGE_SECONDS:g} s") from None
        raise
    return body


async def begin(response: Response) -> bytes:
    """Return the begin of a body, which is that of an error. It may be incomplete."""
    body = b""
    async with asyncio.timeout(API_PAGE_SECONDS):
        async for piece in pieces(response):
            body += piece
            if len(body) >= API_ERROR:
                break
    return body[:API_ERROR]


def _splitter(encoding: str) -> _Gunzip | _Cut:
    if encoding.lower() == "gzip":
        return _Gunzip()
    if encoding.lower() == "identity":
        return _Cut()
    raise InvalidResponseError(f"the response has the encoding {encoding!r}, which was not requested")


class _Cut:
    """Cuts data into pieces."""

    def __call__(self, data: bytes) -> Iterator[bytes]:
        return (data[start : start + API_PIECE] for start in range(0, len(data), API_PIECE))


class _Gunzip:
    """Decompresses data into pieces."""

    def __init__(self) -> None:
        self.ended = False
        self._stream = zlib.decompressobj(GZIP)

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self.ended:
                raise InvalidResponseError("data follows after the end of the compressed response")
            try:
                piece = self._stream.decompress(data, API_PIECE)
            except zlib.error as error:
                raise InvalidResponseError(f"the compressed response is invalid: {error}") from None
            self.ended = self._stream.eof
            data = self._stream.unused_data if self.ended else self._stream.unconsumed_tail
            yield piece
