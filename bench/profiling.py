"""The profile of a first sync: cProfile of the command, in this process."""

from __future__ import annotations

import cProfile
import os
import pstats
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from netns_lab.netns import in_fresh_namespace

from bench.samples import samples
from bench.suite import Files
from kproxy import cli

LINES = 40


def profile_first_sync(count: int) -> None:
    """Print the functions with the longest own time, then those with the longest total time."""
    with TemporaryDirectory(prefix="kproxy-bench-") as folder:
        files = Files(Path(folder), list(samples(count)))
        arguments = ["sync", *files.arguments(files.json, "state")]
        profile = cProfile.Profile()
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            in_fresh_namespace(lambda: profile.runcall(cli.main, arguments))
    for order in ("tottime", "cumulative"):
        pstats.Stats(profile).sort_stats(order).print_stats(LINES)
