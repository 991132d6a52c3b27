"""The question of explain and trace: which connection, and the snapshot that it is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kproxy.cli.output import print_problems
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.explain.question import Asker, Question, words_of
from kproxy.problems import CommandLineError
from kproxy.settings.settings import Settings
from kproxy.show.complaints import complaints
from kproxy.show.snapshot import Snapshot


class Asked(NamedTuple):
    """What a command asks about."""

    question: Question
    snapshot: Snapshot
    """At least what concerns the question."""


def ask(verb: str, settings: Settings, operands: Sequence[str]) -> Asked:
    """Parse FROM and TO, and print what is wrong with the input. Raises CommandLineError and KproxyError."""
    sender, destination = operands
    if settings.output not in ("", "json"):
        raise CommandLineError(f"--output: {verb} prints text or json, not {settings.output}.")
    with progress() as activity:
        snapshot = look_up(settings, activity, about=words_of(sender, destination, settings.namespace))
    print_problems(complaints(snapshot))
    asker = Asker(snapshot, settings.namespace, settings.interface, settings.source_port)
    return Asked(asker.question(sender, destination), snapshot)
