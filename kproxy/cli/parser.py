"""An argument parser that takes flags anywhere, as kubectl does: `get svc -n shop web -o yaml`."""

from __future__ import annotations

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """Positional arguments may stand on both sides of a flag.

    argparse can do that (`parse_intermixed_args`), but does not where a parser is that of a sub-command.
    """

    _mixing = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"argument_default": argparse.SUPPRESS, **options})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse's; it is also what that other way of parsing calls in turn."""
        if self._mixing or any(action.nargs == argparse.PARSER for action in self._actions):
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
