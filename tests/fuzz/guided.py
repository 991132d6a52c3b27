"""Fuzzes one target with atheris, which chooses mutations by the coverage that they reach.

    python -m tests.fuzz.guided TARGET SECONDS FOLDER

A program of its own, because atheris takes over the process: it adds counters to the bytecode, and ends
the process. The status is 0 if no input failed. An input that fails is saved in the corpus, and in FOLDER.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import MAX_SIZE

atheris: Any = importlib.import_module("atheris")
with atheris.instrument_imports(include=["kproxy"]):
    targets = importlib.import_module("tests.fuzz.targets")

from tests.fuzz.test_fuzz import check  # noqa: E402  (it imports what has to be instrumented)


def main(name: str, seconds: str, folder: str) -> None:
    """Fuzz until an input fails, or the time is over. Does not return."""
    target = next(each for each in targets.TARGETS if each.name == name)
    for number, seed in enumerate(target.seeds()):
        (Path(folder) / str(number)).write_bytes(seed)
    flags = (
        f"-max_total_time={seconds}",
        f"-max_len={MAX_SIZE}",
        f"-artifact_prefix={folder}/",
        "-rss_limit_mb=4096",
    )
    atheris.Setup([sys.argv[0], *flags, "-print_final_stats=1", folder], partial(check, target))
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
