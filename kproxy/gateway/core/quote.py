"""How text of other parties gets into HAProxy's configuration. No other module writes such text into it.

HAProxy splits a line at blanks. In single quotes nothing has a meaning but the quote itself. A line feed
would end the line, so `quoted` refuses control characters. Some arguments are formats, in which HAProxy
replaces `%` sequences: these need `format_text`. Names inside of parentheses cannot be quoted, so `word`
checks them instead.
"""

from __future__ import annotations

import re
from hashlib import sha256

from kproxy.limits import GATEWAY_TEXT

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_WORD = re.compile(r"[A-Za-z0-9_.~-]+")
_PLAIN = re.compile(r"[A-Za-z0-9_./:@=+~,-]+")
LISTENER_NAME = re.compile(r"[A-Za-z0-9_.:-]+")
HEADER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FRAMING = frozenset(
    {"connection", "content-length", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_STEM = 200
"""The maximum length of the name of a file without its ending. A file system takes 255 bytes."""


def quoted(text: str) -> str:
    """Return an argument with this value. Raises ValueError if the text cannot be one.

    An empty text cannot: HAProxy takes it for the end of the line, even in quotes.
    """
    if not text:
        raise ValueError("is empty")
    if len(text) > GATEWAY_TEXT:
        raise ValueError(f"has more than {GATEWAY_TEXT} characters")
    if found := _CONTROL.search(text):
        raise ValueError(f"must not contain the character {found[0]!r}")
    return text if _PLAIN.fullmatch(text) else "'" + text.replace("'", "'\\''") + "'"


def format_text(text: str) -> str:
    """Return text that stands for itself in a format, not quoted yet."""
    return text.replace("%", "%%")


def quoted_format(text: str) -> str:
    """Return an argument that is a format with this value."""
    return quoted(format_text(text))


def pattern(text: str) -> str:
    """Return the end of a condition that a value equals a text: `-m str -- 'a b' }`."""
    if text == "}":  # HAProxy ends the condition there, even in quotes
        return "-m reg -- ^[}]$ }"
    return f"-m str -- {quoted(text)} }}"


def regex_pattern(regex: str) -> str:
    """Return the end of a condition that a value matches a regular expression."""
    return f"-m reg -- {quoted(f'(?:{regex})')} }}"


def word(text: str) -> str:
    """Return a name that may stand in parentheses. Raises ValueError for others."""
    if not _WORD.fullmatch(text) or len(text) > GATEWAY_TEXT:
        raise ValueError(f"{text[:100]!r} may only contain letters, digits and - . _ ~")
    return text


def header_name(text: str) -> str:
    """Return the name of a header. Raises ValueError if it is none."""
    if not HEADER_NAME.fullmatch(text) or len(text) > 256:
        raise ValueError(f"{text[:100]!r} is not the name of a header")
    return text


def changed_header(text: str) -> str:
    """Return the name of a header that may be set or removed. Raises ValueError for others.

    Those that say where a message ends, or belong to a connection, are HAProxy's.
    """
    if text.lower() in _FRAMING:
        raise ValueError(f"the header {text} belongs to the connection: it cannot be set or removed")
    return header_name(text)


def file_name(text: str, ending: str) -> str:
    """Return the name of a file about an object. A name that is too long ends with a digest."""
    stem = text.replace("/", "_")
    if len(stem) > _STEM:
        stem = f"{stem[: _STEM - 33]}-{sha256(text.encode()).hexdigest()[:32]}"
    return stem + ending
