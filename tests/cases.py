"""Cases of a test as a table: one line each, as they are easiest to read and to add."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest


def cases(table: str, **types: Callable[[str], object]) -> pytest.MarkDecorator:
    """Return the decorator that runs a test for each line of a table.

    The first line contains the names of the test's arguments. Two spaces or more separate columns; `-` stands
    for an empty cell. `types` says for arguments that are not texts how to read them, for example `port=int`.
    """
    names, *rows = (re.split(r"\s{2,}", line.strip()) for line in table.strip().splitlines())
    read = [types.get(name, str) for name in names]
    return pytest.mark.parametrize(
        names,
        [
            tuple(convert("" if cell == "-" else cell) for convert, cell in zip(read, row, strict=True))
            for row in rows
        ],
    )
