"""`kproxy env`: print the variables that a pod has for services. Needs no root and no kernel."""

from __future__ import annotations

from collections.abc import Sequence

from kproxy.cli.output import print_problems, write
from kproxy.cli.progress import progress
from kproxy.control.lookup import look_up
from kproxy.model import NamespacedName
from kproxy.problems import UsageError
from kproxy.settings.settings import Origin, Settings
from kproxy.show.complaints import complaints, is_incomplete
from kproxy.show.environment import FORMATS, variables_of


def run(settings: Settings, operands: Sequence[str]) -> int:
    """Run the verb. Returns the exit status."""
    pod = pod_name(operands[0], settings)
    with progress() as activity:
        snapshot = look_up(settings, activity)
    print_problems(complaints(snapshot, notes=False))  # other pods that may be missing do not matter here
    write(FORMATS[settings.format](variables_of(snapshot, pod)))
    return 1 if is_incomplete(snapshot, settings.strict) else 0


def pod_name(text: str, settings: Settings) -> NamespacedName:
    """Parse `POD`, `pod/POD` or `NAMESPACE/POD`. Raises UsageError."""
    own, slash, name = text.removeprefix("pod/").rpartition("/")
    if slash and own != settings.namespace and settings.origin("namespace") is Origin.FLAG:
        raise UsageError(f"{text} is not in namespace {settings.namespace} (-n).")
    return NamespacedName(own or settings.namespace, name)
