"""Text of counters that have a series for each of thousands of values.

prometheus_client takes 6 µs for a series, most of it to check names that do not change. Here a series is its
labels, which are kept as text, and a number.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Generic, TypeVar

from prometheus_client.utils import floatToGoString

Key = TypeVar("Key", bound=Hashable)
EXACT = 1_000_000
"""Go writes smaller numbers without an exponent."""


class Series(Generic[Key]):
    """The counter `name`_total in Prometheus' text format."""

    def __init__(self, name: str, text: str, labels_of: Callable[[Key], Mapping[str, str]]) -> None:
        """`labels_of` returns the labels of a series. The result for a series is kept while it exists."""
        self._name = f"{name}_total"
        self._head = f"# HELP {self._name} {text}\n# TYPE {self._name} counter\n"
        self._labels_of = labels_of
        self._labels: dict[Key, str] = {}
        self._version: object = None
        self._last = b""

    def text(self, version: object, totals: Callable[[], Mapping[Key, int]]) -> bytes:
        """Return all series. They are the last ones if `version`, which belongs to the totals, is equal."""
        if version != self._version:
            self._last = self._text(totals()).encode()
            self._version = version
        return self._last

    def _text(self, totals: Mapping[Key, int]) -> str:
        if self._labels.keys() != totals.keys():
            known = self._labels
            self._labels = {key: known.get(key) or self._packed(key) for key in totals}
        labels = self._labels
        lines = [
            f"{labels[key]}{total}.0\n" if total < EXACT else f"{labels[key]}{_number(total)}\n"
            for key, total in totals.items()
        ]
        return self._head + "".join(lines)

    def _packed(self, key: Key) -> str:
        labels = ",".join(_label(*label) for label in sorted(self._labels_of(key).items()))
        return f"{self._name}{{{labels}}} "


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{name}="{escaped}"'


def _number(total: int) -> str:
    text: str = floatToGoString(total)  # type: ignore[no-untyped-call]
    return text
