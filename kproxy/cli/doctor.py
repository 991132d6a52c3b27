"""`kproxy doctor`: look for the causes of a Service that does not answer. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from kproxy.cli.output import write, write_text
from kproxy.cli.progress import progress
from kproxy.doctor.core.diagnosis import diagnose
from kproxy.doctor.core.views import as_json, as_text
from kproxy.doctor.gather import gather
from kproxy.problems import CommandLineError, KproxyError, UsageError
from kproxy.settings.settings import Settings


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status: 2 if it could not look, also if the reason is no usage error."""
    if settings.from_ and not operands:
        raise CommandLineError("--from needs a SERVICE.")
    try:
        with progress() as activity:
            facts = gather(settings, "".join(operands), activity)
    except UsageError:
        raise
    except KproxyError as error:
        raise UsageError(str(error), error.hint) from None
    found = diagnose(facts)
    if settings.output == "json":
        write(as_json(found))
    else:
        write_text(as_text(found))
    return found.status
