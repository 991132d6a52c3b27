"""Label and field selectors of queries."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from tests.apiserver.status import bad_request

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s=!]*)$")
_EXISTENCE = re.compile(r"^(?P<absent>!?)\s*(?P<key>[^\s=!()]+)$")
# Commas outside parentheses.
_COMMA = re.compile(r",(?![^()]*\))")


def label_selector(text: str) -> Predicate | None:
    """Return a function that matches labels, None for an empty selector; 400 for an invalid one."""
    requirements = [_requirement(part.strip()) for part in _COMMA.split(text)] if text.strip() else []
    if not requirements:
        return None
    return lambda labels: all(requirement(labels) for requirement in requirements)


def _requirement(text: str) -> Predicate:
    if found := _SET.match(text):
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUALITY.match(text):
        key, value = found["key"], found["value"]
        if found["operator"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTENCE.match(text):
        key = found["key"]
        return (lambda labels: key not in labels) if found["absent"] else (lambda labels: key in labels)
    raise bad_request(f"unable to parse requirement: {text!r}")


class FieldTerm:
    """One term of a field selector: `metadata.name=web`, `spec.nodeName!=n1`."""

    def __init__(self, text: str) -> None:
        found = _EQUALITY.match(text)
        if not found:
            raise bad_request(f"invalid selector: {text!r}; can't understand {text!r}")
        self.name = found["key"]
        self.value = found["value"]
        self.equal = found["operator"] != "!="

    def __call__(self, manifest: object) -> bool:
        """Whether an object matches. A missing field counts as empty."""
        for part in self.name.split("."):
            manifest = manifest.get(part, "") if isinstance(manifest, dict) else ""
        return (str(manifest) == self.value) == self.equal


def field_selector(text: str) -> list[FieldTerm]:
    """Return the terms, all of which must match; 400 for an invalid selector."""
    return [FieldTerm(part.strip()) for part in text.split(",")] if text.strip() else []
