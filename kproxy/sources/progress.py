"""The present activity of a command. The code that works sets it, and the command line shows it."""

from __future__ import annotations


class Progress:
    """The present activity, such as `reading web.yaml`."""

    def __init__(self) -> None:
        self.activity = ""

    def begin(self, activity: str) -> None:
        """Set the present activity."""
        self.activity = activity


UNSHOWN = Progress()
"""For work whose progress is not shown."""
