"""What went wrong with a connection, in a sentence: exceptions of aiohttp show their insides."""

from __future__ import annotations

import os
import ssl
from errno import ECONNRESET

import aiohttp


def sentence(error: BaseException) -> str:
    """What to tell of an error that ended a request; never empty."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"cannot connect to {_place(error)}: {_reason(error.certificate_error)}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {_place(error)}: {_reason(error.os_error)}"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer came"
        case aiohttp.ClientPayloadError() if isinstance(error.__cause__, OSError):
            return f"the answer broke off: {_reason(error.__cause__)}"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case aiohttp.ConnectionTimeoutError():
            return "no connection came about in time"
        case aiohttp.SocketTimeoutError():
            return "nothing came for too long"
        case aiohttp.ClientOSError():
            return _reason(error)
        case _:
            return str(error) or type(error).__name__


def _place(error: aiohttp.ClientConnectorError) -> str:
    host = f"[{error.host}]" if ":" in error.host else error.host
    return f"{host}:{error.port}"


def _reason(error: Exception) -> str:
    """In the system's words, where it has some."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    if isinstance(error, ConnectionResetError):  # asyncio's, while TLS connects, has no number
        return os.strerror(ECONNRESET)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
