"""The pages that the gateway itself sends: no route, no endpoint, or a request that it refuses."""

from __future__ import annotations

from kproxy.gateway.core.frontend import PAGES, page_name

_TEXTS = {
    400: ("Bad Request", "The request is malformed."),
    401: ("Unauthorized", "This page requires a user name and a password."),
    403: ("Forbidden", "Your address is not allowed to use this page."),
    404: ("Not Found", "There is no such page on this server."),
    405: ("Method Not Allowed", "This method is not allowed here."),
    408: ("Request Timeout", "The request was not complete in time."),
    413: ("Content Too Large", "The request is too large."),
    429: ("Too Many Requests", "There were too many requests from your address. Try again later."),
    500: ("Server Error", "The server is not configured for this page."),
    502: ("Server Error", "The server encountered a temporary error. Try again in 30 seconds."),
    503: ("Service Unavailable", "The service is not available. Try again in 30 seconds."),
    504: ("Gateway Timeout", "The service did not answer in time. Try again in 30 seconds."),
}


def pages() -> dict[str, bytes]:
    """Return the pages by file name."""
    return {page_name(status): _page(status, *_TEXTS[status]) for status in PAGES}


def _page(status: int, title: str, text: str) -> bytes:
    return (
        f"<!doctype html>\n<html><head><title>{status} {title}</title></head>\n"
        f"<body><h1>{status} {title}</h1><p>{text}</p></body></html>\n"
    ).encode()
