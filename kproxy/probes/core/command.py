"""How a command gets into a container: a command line with placeholders for the container.

The template is split into words before values are put in, and no shell reads the result: a value from
a manifest stays one word, whatever characters it has.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from kproxy.model import NamespacedName

RUNNERS = {
    "netns": "ip netns exec {pod}",
    "docker": "docker exec {pod}",
    "podman": "podman exec {pod}-{container}",
    "nerdctl": "nerdctl exec {pod}",
}
"""Templates that have a name. `podman kube play` names containers so."""
PLACEHOLDER = re.compile(r"\{(\w*)\}")
KNOWN = ("namespace", "pod", "container")


class CommandTemplate:
    """A template of `RUNNERS`, or one of the user's own."""

    def __init__(self, text: str) -> None:
        """ValueError if the text is empty or has an unknown placeholder."""
        self.text = text
        self._words = shlex.split(RUNNERS.get(text, text))
        if not self._words:
            raise ValueError("is empty")
        for name in (name for word in self._words for name in PLACEHOLDER.findall(word)):
            if name not in KNOWN:
                raise ValueError(f"{{{name}}} is not one of {', '.join(f'{{{known}}}' for known in KNOWN)}")

    def words(self, pod: NamespacedName, container: str, command: Sequence[str]) -> list[str]:
        """The command line that runs `command` in a container."""
        values = {"namespace": pod.namespace, "pod": pod.name, "container": container}
        return [*(PLACEHOLDER.sub(lambda found: values[found[1]], word) for word in self._words), *command]
