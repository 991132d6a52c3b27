"""The command line: a module for each verb, with a function `run` that returns the exit status.

This folder only parses, prints, and returns exit statuses. The verbs and their flags are tables in
`settings/`. The module of a verb is imported when the verb runs, so that `kproxy version` does not import
netlink code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from click.exceptions import Exit

from kproxy import INTERRUPTED
from kproxy.cli.output import escape_unencodable, flush, note, warn
from kproxy.cli.parser import PROGRAM, Call, parse
from kproxy.problems import CommandLineError, KproxyError, UsageError
from kproxy.settings.verbs import VERBS, Verb, usage

if TYPE_CHECKING:
    from kproxy.settings.settings import Settings


CALLS = 3
"""The calls that the message about an internal error names."""


def main(argv: list[str] | None = None) -> int:
    """Run a command line. Returns the exit status."""
    escape_unencodable()
    words = sys.argv[1:] if argv is None else argv
    try:
        status = _run(words)
        flush()
    except KproxyError as error:
        warn(error.full)
        if isinstance(error, CommandLineError):
            _show_usage(VERBS.get(words[0]) if words else None)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        warn(f"{type(error).__name__}: {error}")
        return 1
    except KeyboardInterrupt:
        warn("Interrupted.")
        return INTERRUPTED
    except Exception as error:
        warn(f"Internal error: {type(error).__name__}: {error} ({_place(error)}). Please report this line.")
        return 1
    return status


def _place(error: Exception) -> str:
    """Return the innermost calls at which an exception was raised, the last one first."""
    from traceback import extract_tb

    calls = reversed(extract_tb(error.__traceback__, -CALLS))
    return ", called by ".join(f"{each.name} in {each.filename}:{each.lineno}" for each in calls)


def _show_usage(verb: Verb | None) -> None:
    for line in usage(verb):
        note(line)
    note(f"See '{PROGRAM}{f' {verb.name}' if verb else ''} --help'.")


def _run(argv: list[str]) -> int:
    if instruction := os.environ.get("_KPROXY_COMPLETE"):
        from kproxy.cli.completion import complete

        return complete(instruction)
    try:
        call = parse(argv)
    except Exit as end:  # click has printed help or the version
        return end.exit_code
    return _run_verb(call)


def _run_verb(call: Call) -> int:
    for warning in call.warnings:
        warn(warning)
    module = import_module(f"kproxy.cli.{call.verb.module}")
    arguments = (_settings(call.flags), call.operands) if call.verb.takes_flags else (call.operands,)
    status: int = module.run(*arguments)
    return status


def settings_from(argv: list[str]) -> Settings:
    """Return the settings of a command line. Raises UsageError."""
    return _settings(parse(argv).flags)


def _settings(flags: Mapping[str, Any]) -> Settings:
    """Return the settings: flags override the configuration file, which overrides defaults."""
    from kproxy.kernel.host import host_name
    from kproxy.settings.settings import settings

    file: dict[str, Any] = {}
    if "config" in flags:
        from kproxy.sources.configuration import read_configuration

        file, warnings = read_configuration(flags["config"])
        for warning in warnings:
            warn(warning)
    return settings(flags, file, host_name())
