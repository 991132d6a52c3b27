"""Escapes text of other parties before it reaches a terminal or a log.

Names, labels, annotations, file names, error messages of servers and output of probes can contain any
character. A line feed would forge a line of the log, and an escape sequence can change what a terminal shows.
"""

from __future__ import annotations

from kproxy.limits import MESSAGE_CHARACTERS


def printable(text: str) -> str:
    r"""Return the text with for example `\n`, `\x1b` or `\u202e` for each character that cannot be seen.

    These are control characters, marks of direction, characters without width, blanks other than the usual
    one, and bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def one_line(text: str) -> str:
    """Return a printable message, of a limited length."""
    rest = len(text) - MESSAGE_CHARACTERS
    return printable(f"{text[:MESSAGE_CHARACTERS]}... ({rest} more characters)" if rest > 0 else text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
