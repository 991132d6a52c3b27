"""Templates for running a command in a container: a command line with placeholders.

The template is split into words before the placeholders are replaced, and no shell interprets the
result. So a value from a manifest remains one word, whatever characters it contains.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from kproxy.model import NamespacedName

NETNS = "netns"
RUNNERS = {
    NETNS: "ip netns exec {pod}",
    "docker": "docker exec {pod}",
    "podman": "podman exec {pod}-{container}",
    "nerdctl": "nerdctl exec {pod}",
}
"""Named templates. `podman kube play` names its containers POD-CONTAINER."""
PLACEHOLDER = r"\{(\w*)\}"
KNOWN = ("namespace", "pod", "container")


class CommandTemplate:
    """A named template of `RUNNERS`, or a command line with placeholders. Equal texts are equal templates."""

    def __init__(self, text: str) -> None:
        """Raises ValueError if the text is empty or contains an unknown placeholder."""
        self.text = text
        self._words = shlex.split(RUNNERS.get(text, text))
        if not self._words:
            raise ValueError("is empty")
        for name in (name for word in self._words for name in re.findall(PLACEHOLDER, word)):
            if name not in KNOWN:
                raise ValueError(f"{{{name}}} is not one of {', '.join(f'{{{known}}}' for known in KNOWN)}")

    @property
    def enters_network(self) -> bool:
        """Whether it only enters the network of a pod, which a pod of the host network does not need."""
        return self.text == NETNS

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CommandTemplate) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def words(self, pod: NamespacedName, container: str, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` in a container."""
        values = {"namespace": pod.namespace, "pod": pod.name, "container": container}
        words = (re.sub(PLACEHOLDER, lambda found: values[found[1]], word) for word in self._words)
        return [*words, *command]
