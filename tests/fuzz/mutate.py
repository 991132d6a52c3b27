"""Mutations of bytes, as values that hypothesis can draw and shrink."""

# ruff: noqa: E501  (a row of tokens is a line)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st

MAX_SIZE = 1 << 16
TOKENS = (
    *(b"9" * 5000, b"1e400", b"-1", b"NaN", b"18446744073709551616", b"0" * 300, b"\xff", b"\0", b"\xed\xa0\x80"),
    *(b"[" * 3000, b"{" * 900, b'{"a":' * 900, b"(" * 900, b"]", b"}", b",", b":", b'"', b"'", b"\\ud800", b"\\u0000"),
    *(b"&a ", b"*a", b"<<: *a\n", b"? ", b"- ", b"---\n", b"...\n", b"!!binary ", b"!!int ", b"!!set ", b"!!python/x "),
    *(b"\n", b"\r\n", b"\t", b" " * 200, b"\n" * 200, b"# ", b"%YAML 1.1\n", b"|\n", b"{{ x }}", b"${X}", b"null"),
    *(b"\r\n\r\n", b"HTTP/1.1 100 \r\n\r\n", b"Content-Length: 9999\r\n", b"Transfer-Encoding: chunked\r\n", b"ffffffff\r\n"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\0\0\xfe\xff", b"\x04\0\0\0", b"\xff\xff\xff\xff", b"\x10\0\0\0"),
    *(b'"apiVersion":"v1",', b'"kind":"List",', b'"items":[', b"apiVersion: v1\n", b"kind: Service\n", b"metadata: {name: a}\n"),
)  # fmt: skip


class Mutation(NamedTuple):
    """One change. Places and lengths are taken modulo the length of the input."""

    kind: int
    place: int
    length: int
    number: int


numbers = st.integers(0, 1 << 16)
mutations = st.lists(st.builds(Mutation, st.integers(0, 6), numbers, numbers, numbers), max_size=6)


def mutated(seeds: Sequence[bytes], chosen: int, changes: Iterable[Mutation]) -> bytes:
    """Return a seed after the changes, at most `MAX_SIZE` bytes of it."""
    data = seeds[chosen % len(seeds)]
    for change in changes:
        data = _changed(data, change, seeds)[:MAX_SIZE]
    return data


def _changed(data: bytes, change: Mutation, seeds: Sequence[bytes]) -> bytes:
    kind, place, length, number = change
    place %= len(data) + 1
    end = place + length % 64
    other, part = seeds[number % len(seeds)], data[place:end]
    return (
        data[:place]
        + (
            TOKENS[number % len(TOKENS)] + data[place:],
            TOKENS[number % len(TOKENS)] + data[end:],
            data[end:],
            part * (2 + number % 200) + data[place:],
            bytes([number % 256]) + data[place + 1 :],
            other[length % (len(other) + 1) :],
            part[::-1] + data[end:],
        )[kind]
    )
