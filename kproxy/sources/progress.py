"""What a command is doing now: the code that does it tells, and the command line reads it."""

from __future__ import annotations


class Progress:
    """The activity that was told last, such as `reading web.yaml`."""

    def __init__(self) -> None:
        self.doing = ""

    def tell(self, doing: str) -> None:
        """Begin another activity."""
        self.doing = doing


UNSHOWN = Progress()
"""For work whose progress no one reads."""
