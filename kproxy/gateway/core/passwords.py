"""Hashes of passwords (crypt), and how long HAProxy computes with one.

HAProxy computes a hash when it reads its configuration, once for each user, and again for each request. It
does nothing else meanwhile. How long that takes is in the hash itself.
"""

from __future__ import annotations

import re

_FORMS = (
    (re.compile(r"\$1\$[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"), lambda _: 0.0005),
    (
        re.compile(r"\$[56]\$(?:rounds=(\d{1,9})\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43,86}"),
        lambda rounds: 0.75e-6 * int(rounds or 5000),
    ),
    (re.compile(r"\$2[abxy]\$(\d\d)\$[./A-Za-z0-9]{53}"), lambda cost: 0.1e-3 * 2 ** int(cost)),
    (re.compile(r"\$y\$j[5-9]T\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}"), lambda _: 0.05),
)
"""The forms that crypt(3) of Debian knows, and the seconds that each takes on a slow machine."""


def seconds(text: str) -> float | None:
    """Return about how long HAProxy computes with a hash; None if it is not one that it can use."""
    for form, duration in _FORMS:
        if found := form.fullmatch(text):
            return duration(found[1] if form.groups else "")
    return None
