"""Parses kubectl's label selectors: `app=web,tier!=cache,zone in (a, b),!old`. Pure."""

from __future__ import annotations

import re

from kproxy.model import LABEL_NUMBER, Requirement, Selector
from kproxy.problems import UsageError

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
_BETWEEN = re.compile(r",(?![^()]*\))")
_REQUIREMENT = re.compile(
    r"""\s*(?:
        (?P<key>[^\s!=<>(),]+)\s*
        (?:(?P<compared>==?|!=|<|>)\s*(?P<value>[^\s!=<>(),]*)
          |(?P<set>(?<=\s)(?:in|notin))\s*\((?P<values>[^()]*)\))?
       |!\s*(?P<absent>[^\s!=<>(),]+)
    )\s*""",
    re.VERBOSE,
)


def parse_selector(text: str) -> Selector:
    """Parse a selector. Raises UsageError, which names the invalid part."""
    if not text.strip():
        return Selector()
    return Selector(tuple(_requirement(part) for part in _BETWEEN.split(text)))


def _requirement(text: str) -> Requirement:
    found = _REQUIREMENT.fullmatch(text)
    if not found:
        forms = "KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (VALUE, ...) or KEY notin (VALUE, ...)"
        raise UsageError(f"--selector: {text.strip()!r} is not {forms}.")
    if found["absent"]:
        return Requirement(_key(found["absent"]), "absent")
    key, compared = _key(found["key"]), found["compared"]
    if found["set"]:
        return Requirement(key, found["set"], tuple(sorted(set(map(_value, found["values"].split(","))))))
    if not compared:
        return Requirement(key, "exists")
    if compared in "<>":
        return Requirement(key, compared, (_number(found["value"]),))
    return Requirement(key, "notin" if compared == "!=" else "in", (_value(found["value"]),))


def _key(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise UsageError(f"--selector: {text!r} is not a valid label key.")
    return text


def _value(text: str) -> str:
    text = text.strip()
    if not _VALUE.fullmatch(text):
        raise UsageError(f"--selector: {text!r} is not a valid label value.")
    return text


def _number(text: str) -> str:
    if not LABEL_NUMBER.fullmatch(text):
        raise UsageError(f"--selector: {text!r} is not a number.")
    return text
