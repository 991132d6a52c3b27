"""Compares an output with the lines that a step expects. Pure.

In an expected line, blanks stand for any number of blanks, `*` for any characters without a blank, and
`**` for any characters. The lines must be in the output in this order; other lines may be between them.
"""

import re

ANSWER = re.compile(r"^\s*(\d*)\s*You've hit (\S+)", re.MULTILINE)
"""An answer of a pod, after the number of such answers if `uniq -c` counted them."""
HEADER = re.compile(r"^< ()X-Pod: (\S+)", re.MULTILINE)
"""The header in which a host of the lab says its name, as curl -v shows it."""


def missing(expected: str, output: str) -> list[str]:
    """Return the expected lines that are not in the output, or not in this order."""
    rest = _lines(output)
    found = []
    for line in _lines(expected):
        pattern = re.compile(_pattern(line))
        place = next((number for number, other in enumerate(rest) if pattern.fullmatch(other)), None)
        if place is None:
            found.append(line)
        else:
            rest = rest[place + 1 :]
    return found


def answers(output: str) -> dict[str, int]:
    """Return how many answers of each pod an output has."""
    counted: dict[str, int] = {}
    for number, name in ANSWER.findall(output) or HEADER.findall(output):
        counted[name] = counted.get(name, 0) + int(number or 1)
    return counted


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _pattern(line: str) -> str:
    parts = re.split(r"(\*\*|\*)", line)
    wild = {"**": ".*", "*": r"\S*"}
    return "".join(wild.get(part) or re.escape(part) for part in parts)
