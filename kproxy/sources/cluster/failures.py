"""Describes errors of connections as sentences. The texts of aiohttp's exceptions contain internals."""

from __future__ import annotations

import os
import ssl
from errno import ECONNRESET

import aiohttp


def sentence(error: BaseException) -> str:
    """Return the description of an error that ended a request. It is never empty."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"cannot connect to {_server(error)}: {_reason(error.certificate_error)}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {_server(error)}: {_reason(error.os_error)}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection without a response"
        case aiohttp.ClientPayloadError() if isinstance(error.__cause__, OSError):
            return f"the response is incomplete: {_reason(error.__cause__)}"
        case aiohttp.ClientPayloadError():
            return "the response is incomplete"
        case aiohttp.ConnectionTimeoutError():
            return "timeout while connecting"
        case aiohttp.SocketTimeoutError() | TimeoutError():
            return "timeout while waiting for data"
        case aiohttp.ClientOSError():
            return _reason(error)
        case _:
            return str(error) or type(error).__name__


def _server(error: aiohttp.ClientConnectorError) -> str:
    host = f"[{error.host}]" if ":" in error.host else error.host
    return f"{host}:{error.port}"


def _reason(error: Exception) -> str:
    """Return the system's text for an error, if it has one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    if isinstance(error, ConnectionResetError):  # during the TLS handshake, asyncio raises it without errno
        return os.strerror(ECONNRESET)
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
