"""No bytes raise an exception that is not declared, or take longer than a bound.

The suite tries a few changes of the inputs in `corpus`. `make fuzz` tries others, for KPROXY_LONG_MINUTES. An
input that fails is saved in the corpus, so that the suite tries it from then on.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.mutate import Mutation, mutated, mutations, numbers
from tests.fuzz.targets import CORPUS, TARGETS, Target

SECONDS = 5.0
"""CPU time for an input of 64 KiB. Most take a few milliseconds."""
MINUTES = float(os.environ.get("KPROXY_LONG_MINUTES", "60"))
SHARE = MINUTES * 60 / len(TARGETS) / 2
"""Seconds for each target, of random changes and of those that atheris chooses."""
NAMES = [target.name for target in TARGETS]
IGNORED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


class TooSlowError(BaseException):
    """Reading took too much CPU time. A BaseException: readers catch each Exception."""


@contextmanager
def limited_cpu_time() -> Iterator[None]:
    """Raise an error as soon as the block takes more than `SECONDS`, also if it would never end."""

    def end(number: int, frame: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    except TooSlowError:
        raise AssertionError(f"more than {SECONDS} s of CPU time") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def check(target: Target, data: bytes) -> None:
    """Read an input. Saves it in the corpus if that fails."""
    try:
        with limited_cpu_time(), suppress(*target.declared):
            target.read(data)
    except Exception:
        folder = CORPUS / target.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"found-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
        raise


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_inputs_of_the_corpus(target: Target) -> None:
    seeds = target.seeds()
    assert seeds
    for data in seeds:
        check(target, data)


def fuzz(target: Target, examples: int, fixed: bool) -> None:
    """Try changes of the seeds of a target. `fixed`: the same ones each time."""
    seeds = target.seeds()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=fixed,
        database=None,
        suppress_health_check=IGNORED,
        phases=[Phase.generate] if fixed else [Phase.generate, Phase.shrink],
    )
    @given(numbers, mutations)
    def attempt(chosen: int, changes: list[Mutation]) -> None:
        check(target, mutated(seeds, chosen, changes))

    attempt()


@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_a_few_changes(target: Target) -> None:
    fuzz(target, 30, fixed=True)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_changes_for_a_long_time(target: Target) -> None:
    end = time.monotonic() + SHARE
    while time.monotonic() < end:
        fuzz(target, 50, fixed=False)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS, ids=NAMES)
def test_changes_chosen_by_coverage(target: Target, tmp_path: Path) -> None:
    if not find_spec("atheris"):
        pytest.skip("atheris is not installed: it exists for x86-64 only (`make fuzz` installs it there)")
    command = sys.executable, "-m", "tests.fuzz.guided", target.name, str(round(SHARE)), str(tmp_path)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-8000:]
