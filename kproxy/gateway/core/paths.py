"""Canonical paths, which are compared, and the regular expressions that are allowed.

A server may decode `/%61dmin` to `/admin`, and read `//admin` so, too. If only texts were compared, a client
could reach another route with such a path than the server's answer belongs to. So HAProxy compares canonical
paths: each character but letters, digits and `-._~/` is percent-encoded, `%2f` is a slash, and slashes are
not repeated. A path with an element `.` or `..`, an encoded control character or an invalid escape gets the
status 400.

The directives that compute the canonical path of a request are in `core/frontend.py`. A map contains
canonical paths only, so its keys never contain blanks or quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from kproxy.limits import GATEWAY_REGEX, GATEWAY_REGEX_BYTES, GATEWAY_TEXT

_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_SLASHES = re.compile(r"/+")
DOTS = "(/|%5C)[.][.]?(/|%5C|%3B|$)"
"""A regular expression for canonical paths with an element `.` or `..`. Some servers take a backslash for a
slash, and some ignore what comes after a semicolon in an element."""
_DOTS = re.compile(DOTS)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
_RESERVED = re.compile(r"\[.*?(?:--|&&|~~|\|\|)")
"""What Python may read as an operation of sets in the future. It warns of that on standard error."""
_PIECE = re.compile(
    r"\\[dDwWsSbB.\\/+*?()\[\]{}|^$\-_~:@!,;=&#%\"'<> ]"  # a class or a character
    r"|\[\^?\]?(?:\\[dDwWsS\\\]\[^\-./]|[^\]\[\\])+\]"  # a set
    r"|\{[0-9]{1,3}(?:,[0-9]{0,3})?\}"  # a repetition
    r"|\(\?:|\((?!\?)|[)|^$.*+?]"
    r"|[^\\\[\](){|^$.*+?]"
)


def canonical(path: str) -> str:
    """Return the path that HAProxy compares. Raises ValueError if requests with this path get the status
    400, and for a path that is too long for a line of a map."""
    found = _SLASHES.sub("/", encoded(path))
    if len(found) > GATEWAY_TEXT:
        raise ValueError(f"the path has more than {GATEWAY_TEXT} characters")
    if _DOTS.search(found):
        raise ValueError(f"{path!r} contains . or .. as an element")
    return found


def encoded(text: str) -> str:
    """Return a text in which all characters but letters, digits and `-._~/` are percent-encoded, each once.

    Raises ValueError for control characters, and for a `%` that begins no escape.
    """
    content = text.encode("utf-8", "surrogatepass")
    if re.search(rb"%(?![0-9A-Fa-f]{2})", content):
        raise ValueError(f"{text!r} contains a % that begins no escape")
    decoded = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), content)
    if any(byte < 32 or byte == 127 for byte in decoded):
        raise ValueError(f"{text!r} contains a control character")
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in decoded)


@lru_cache(16_384)
def canonical_regex(text: str) -> str:
    """Return a regular expression for canonical paths. Raises ValueError for one that is not allowed.

    Characters that are escaped in canonical paths are escaped in it, too, except in sets.

    It is cached: a long one takes 2 ms, and each is asked for several times in each rendering.
    """
    return "".join(map(_canonical_piece, _checked(text)))


@lru_cache(16_384)
def checked_regex(text: str) -> str:
    """Return a regular expression for a header or a query parameter. Raises ValueError likewise."""
    _checked(text)
    return text


def _checked(text: str) -> list[str]:
    """Return the pieces of a regular expression.

    It may not take exponential time: a repeated group contains neither repetition nor choice. Both Python and
    PCRE2 read what is allowed here in the same way, and PCRE2 has a limit for the size.
    """
    pieces = list(_pieces(text))
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    if _nested(pieces):
        raise ValueError(f"{text!r} repeats a group that contains a repetition or a choice")
    if _bytes(pieces) > GATEWAY_REGEX_BYTES:
        raise ValueError(f"{text!r} repeats a group too often")
    return pieces


def _bytes(pieces: list[str]) -> int:
    """Return about how many bytes PCRE2 needs. It writes a repeated group as often as it may be repeated."""
    sizes, last = [0], 0
    for piece in pieces:
        if piece[0] == "(":
            sizes.append(8)
            last = 0
        elif piece == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif piece[0] == "{":
            sizes[-1] += last * max(int(number or 1) for number in piece[1:-1].split(","))
            last = 0
        else:
            last = 0
            sizes[-1] += 40 if piece[0] == "[" else 3 * len(encoded(piece[-1]))
    return sizes[0]


def _pieces(text: str) -> Iterator[str]:
    if len(text) > GATEWAY_REGEX:
        raise ValueError(f"a regular expression has at most {GATEWAY_REGEX} characters")
    at = 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None or not piece[0].isprintable() or _RESERVED.match(piece[0]):
            raise ValueError(f"{text!r}: {text[at : at + 20]!r} is not allowed in a regular expression")
        yield piece[0]
        at = piece.end()


def _canonical_piece(piece: str) -> str:
    """Return what a literal character is in canonical paths, and other pieces unchanged."""
    literal = piece[-1] if len(piece) == 1 or (len(piece) == 2 and piece[0] == "\\") else ""
    if not literal or (literal.isalnum() and literal.isascii()) or literal in "-._~/%":
        return piece
    if len(piece) == 1 and literal in "()|^$.*+?":
        return piece
    return f"(?:{encoded(literal)})"


def _nested(pieces: list[str]) -> bool:
    """Whether a group that is repeated contains a repetition or a choice."""
    groups = [False]
    closed = False
    for piece in pieces:
        repeats = piece in ("*", "+") or piece[0] == "{"
        if repeats and closed:
            return True
        closed = False
        if piece[0] == "(":
            groups.append(False)
        elif piece == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1] |= closed
        elif repeats or piece == "|":
            groups[-1] = True
    return False
