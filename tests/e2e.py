"""Runs Kubernetes' end-to-end tests of Services against a cluster: `make test-e2e`, `python -m tests.e2e`.

The tests are in a program of their own, e2e.test, which every Kubernetes release has in its archive of tests.
It decides what is right for a Service in a real cluster. This module only chooses the tests, and counts the
results in the report that the program writes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

FOCUS = r"\[sig-network\].*(Services|Networking|Conntrack|EndpointSlice)"
SKIP = r"\[(Slow|Serial|Disruptive|Flaky|Deprecated|Feature.*:.*)\]|LoadBalancers|Netpol|NetworkPolicy"
"""What a cluster need not have: features, a cloud's load balancers, network policies. Or what disturbs it."""
REPORT = "junit_01.xml"
"""The file that e2e.test writes into the folder of --report-dir."""


class E2eError(Exception):
    """The tests cannot be run, or there is no result."""


class Result(NamedTuple):
    """The tests that were run, by name."""

    passed: Sequence[str]
    failed: Sequence[str]

    def summary(self) -> str:
        """Return one line with the numbers, and one for each failed test."""
        total = len(self.passed) + len(self.failed)
        lines = [f"{len(self.passed)} of {total} tests passed"]
        return "\n".join(lines + [f"failed: {name}" for name in self.failed])


def read(report: Path) -> Result:
    """Read a JUnit report of e2e.test. Raises E2eError if no test was run.

    Tests that were not chosen are in the report as skipped. Steps of the suite have no SIG in their name.
    """
    if not report.is_file():
        raise E2eError(f"e2e.test wrote no report to {report}")
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except ElementTree.ParseError as error:
        raise E2eError(f"{report}: {error}") from None
    run = [case for case in cases if case.find("skipped") is None]
    result = Result(
        passed=[case.get("name", "") for case in run if _is_test(case) and not _failed(case)],
        failed=[case.get("name", "") for case in run if _failed(case)],
    )
    if not result.passed and not result.failed:
        raise E2eError(f"{report}: no test was run")
    return result


def _is_test(case: ElementTree.Element) -> bool:
    return "[sig-" in case.get("name", "")


def _failed(case: ElementTree.Element) -> bool:
    return case.find("failure") is not None or case.find("error") is not None


def _command(options: Namespace) -> Iterator[str]:
    yield str(options.program)
    yield f"--kubeconfig={options.kubeconfig}"
    yield "--provider=skeleton"
    yield f"--report-dir={options.report_dir}"
    yield f"--ginkgo.focus={options.focus}"
    if options.skip:
        yield f"--ginkgo.skip={options.skip}"


def run(options: Namespace) -> tuple[Result, int]:
    """Run the tests, with their output on standard output. Returns the result and the exit status."""
    if not os.access(options.program, os.X_OK) or options.program.is_dir():
        raise E2eError(f"E2E_TEST: {options.program} is not a program")
    if not os.access(options.kubeconfig, os.R_OK):
        raise E2eError(f"KUBECONFIG: {options.kubeconfig} cannot be read")
    report = options.report_dir / REPORT
    report.unlink(missing_ok=True)
    options.report_dir.mkdir(parents=True, exist_ok=True)
    status = subprocess.run(list(_command(options)), stdin=subprocess.DEVNULL).returncode
    try:
        return read(report), status
    except E2eError as error:
        raise E2eError(f"{error} (exit status {status})") from None


def _options(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(prog="python -m tests.e2e", description=__doc__.partition("\n")[0])
    parser.add_argument("program", type=Path, metavar="E2E_TEST")
    parser.add_argument("kubeconfig", type=Path, metavar="KUBECONFIG")
    parser.add_argument("--focus", default=FOCUS, help="regular expression of the tests to run")
    parser.add_argument("--skip", default=SKIP, help="regular expression of the tests to leave out")
    parser.add_argument("--report-dir", type=Path, default=Path("build/e2e"))
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tests of a command line. Returns the exit status: 0 if all passed."""
    try:
        result, status = run(_options(argv))
    except (E2eError, OSError) as error:
        print(f"test-e2e: {error}", file=sys.stderr)
        return 2
    print(f"test-e2e: {result.summary()}")
    return 1 if result.failed or status else 0


if __name__ == "__main__":
    sys.exit(main())
