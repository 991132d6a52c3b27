"""A diagnosis as text and as JSON. docs/troubleshooting.md describes the JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from kproxy.doctor.core.cause import Finding
from kproxy.doctor.core.diagnosis import Diagnosis
from kproxy.printable import printable

SHOWN = 5
"""The number of findings of one cause, and of causes that could not be looked for, to print. JSON has all."""


def as_text(diagnosis: Diagnosis) -> str:
    """Return the findings as paragraphs, and what could not be looked for."""
    parts = [_of_cause(list(group)) for _, group in groupby(diagnosis.findings, lambda each: each.cause)]
    parts += [_unseen(diagnosis.unseen)] if diagnosis.unseen else []
    return "\n".join([*parts, _summary(diagnosis)])


def _of_cause(findings: list[Finding]) -> str:
    lines = [line for finding in findings[:SHOWN] for line in _finding(finding)]
    if len(findings) > SHOWN:
        lines.append(f"  ... and {len(findings) - SHOWN} more of {findings[0].cause.id} (-o json)")
    lines.append(f"  to do: {_plain(findings[0].cause.action)}")
    return "".join(f"{printable(line)}\n" for line in lines)


def _finding(finding: Finding) -> Iterator[str]:
    yield f"{finding.cause.id} {finding.sureness}: {finding.subject}: {finding.what}"
    yield from (f"  {line}" for line in finding.evidence)


def _unseen(findings: Iterable[Finding]) -> str:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for finding in findings:
        by_reason["; ".join(finding.evidence)].append(finding.cause.id)
    return "".join(f"cannot see: {printable(why)} ({_some(ids)})\n" for why, ids in by_reason.items())


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{', '.join(ids[:SHOWN])}{more}"


def _summary(diagnosis: Diagnosis) -> str:
    count = len(diagnosis.findings)
    found = "nothing found" if not count else "1 finding" if count == 1 else f"{count} findings"
    return f"{found}; looked for {diagnosis.checked} causes\n"


def _plain(text: str) -> str:
    return text.replace("`", "")


def as_json(diagnosis: Diagnosis) -> str:
    """Return the diagnosis as a JSON object."""
    found = {
        "findings": [_object(each) for each in (*diagnosis.findings, *diagnosis.unseen)],
        "checked": diagnosis.checked,
    }
    return json.dumps(found, indent=4) + "\n"


def _object(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.cause.id,
        "title": finding.cause.title,
        "sureness": finding.sureness,
        "subject": finding.subject,
        "what": finding.what,
        "evidence": list(finding.evidence),
        "effect": _plain(finding.cause.effect),
        "action": _plain(finding.cause.action),
    }
