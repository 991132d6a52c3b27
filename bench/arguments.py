"""The command lines of the benchmarks. A flag that several of them have is defined here."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


class Arguments(argparse.ArgumentParser):
    """The command line of `python -m MODULE`. Its methods add flags, in the order of the help."""

    def __init__(self, module: str, description: str | None) -> None:
        super().__init__(prog=f"python -m {module}", description=description)

    def number(self, flag: str, default: int, help: str | None = None) -> None:
        """Add a flag with a number."""
        self.add_argument(flag, metavar="N", type=int, default=default, help=help)

    def numbers(self, flag: str, default: tuple[int, ...]) -> None:
        """Add a flag with numbers, with each of which is measured."""
        self.add_argument(flag, metavar="N[,N...]", type=numbers, default=default)

    def seconds(self, flag: str, default: float, help: str) -> None:
        """Add a flag with a duration."""
        self.add_argument(flag, metavar="S", type=float, default=default, help=help)

    def path(self, flag: str, kind: str, help: str) -> None:
        """Add a flag with a path. `kind` is DIR or FILE."""
        self.add_argument(flag, metavar=kind, type=Path, help=help)

    def against(self) -> None:
        """Add the flag for another version of kproxy."""
        self.path("--against", "DIR", "also measure the kproxy of another source folder")

    def json(self) -> None:
        """Add the flag for a file of the figures."""
        self.path("--json", "FILE", "also write the figures to a file")

    def parsed_by_root(self) -> argparse.Namespace:
        """Return the arguments of a benchmark that changes the kernel's tables. Without root, end."""
        arguments = self.parse_args()
        if os.geteuid() != 0:
            self.error("network namespaces and nftables need root")
        return arguments


def numbers(text: str) -> tuple[int, ...]:
    """Parse numbers such as `100,1000`."""
    return tuple(sorted({int(part) for part in text.split(",")}))
