"""Problems and errors, described by what the user can do about them.

A `Problem` concerns one object of the input: kproxy reports it, ignores that object and
continues with the others. A `KproxyError` ends the command; transactions that were
committed before remain in effect. An `InvalidResponseError` ends one request.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from kproxy.limits import PROBLEMS_OF_FILE

LONGEST_WORD = 100
"""The maximum length of a word for which similar ones are looked for. This takes time."""
NAMED = 3
"""The maximum number of objects, files or nodes that a message names."""

SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""The errors that say that this process or this host lacks files or memory. They may pass."""


class Problem(NamedTuple):
    """An error in the input: file, object and field (each may be ""), and a message."""

    source: str
    object: str
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


def limited(problems: Iterable[Problem]) -> list[Problem]:
    """Return the first problems of each source, and how many more it has."""
    found: list[Problem] = []
    counts: Counter[str] = Counter()
    for problem in problems:
        counts[problem.source] += 1
        if counts[problem.source] <= PROBLEMS_OF_FILE:
            found.append(problem)
    more = {source: count - PROBLEMS_OF_FILE for source, count in counts.items() if count > PROBLEMS_OF_FILE}
    return found + [Problem(source, "", "", f"and {count} more problems") for source, count in more.items()]


def unreadable_sentence(causes: Iterable[Problem]) -> str:
    """Return for example `a.yaml: Pod default/a, b.yaml and 2 more cannot be read`."""
    places = dict.fromkeys(": ".join(filter(None, (cause.source, cause.object))) for cause in causes)
    return f"{enumeration(places)} cannot be read"


def enumeration(names: Collection[str]) -> str:
    """Return for example `a, b, c and 2 more`."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(list(names)[:NAMED])}{more}"


def ignored_sentence(kinds: Mapping[str, int]) -> str:
    """Return for example `ignored: 3 ConfigMap, 1 Secret`: how many objects of which kinds are not used."""
    return f"ignored: {listed(kinds)}"


def listed(kinds: Mapping[str, int]) -> str:
    """Return for example `3 ConfigMap, 1 Secret`."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def most_similar(text: str, known: Iterable[str], cutoff: float = 0.65) -> str:
    """Return the most similar word, whatever its case; "" if none is similar, or the text is too long."""
    from difflib import get_close_matches  # its import is slow

    if len(text) > LONGEST_WORD:
        return ""
    words = {word.lower(): word for word in known}
    close = get_close_matches(text.lower(), words, 1, cutoff)
    return words[close[0]] if close else ""


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """Return ` Did you mean X?` with the most similar known word, or "" if none is similar."""
    close = most_similar(text, known)
    return f" Did you mean {close}?" if close else ""


class KproxyError(Exception):
    """A sentence that describes the error, and `hint`: what to do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def full(self) -> str:
        """The sentence and the hint."""
        return f"{self} {self.hint}".rstrip()


class UsageError(KproxyError):
    """The command line is invalid (exit status 2)."""


class CommandLineError(UsageError):
    """The command line cannot be parsed. It is shown with the usage of the verb."""


class HostError(KproxyError):
    """The host or the user lacks something: root privileges, nftables in the kernel."""


class UnsupportedFamily(HostError):
    """The kernel has no IPv6, so no IPv6 packet can arrive."""


class ForbiddenError(KproxyError):
    """The user may not use a file or socket."""


class StateError(KproxyError):
    """kproxy cannot read, write or lock the state directory."""


class InvalidResponseError(ValueError):
    """A response over HTTP is incomplete, or not from the server that was asked."""


class LimitError(InvalidResponseError):
    """A server sent more than a limit allows."""


class RefusedElement(NamedTuple):
    """An element that the kernel refused, and the kernel's message, if there is one."""

    family: str
    """`ip` or `ip6`."""
    set: str
    """The set or map; "" if unknown."""
    key: bytes
    """The key as in the transaction; b"" if only the set is known."""
    message: str = ""
    owner: str = ""
    """`namespace/service:port` of the frontend that it belongs to; "" if unknown."""


class TransactionError(KproxyError):
    """The kernel refused a transaction and applied nothing of it.

    `errno` is the kernel's error number, and `refused` are the elements that the kernel named.
    """

    def __init__(
        self,
        message: str,
        errno: int = 0,
        refused: tuple[RefusedElement, ...] = (),
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.refused = refused
