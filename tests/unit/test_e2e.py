"""`make test-e2e` with a program in the place of e2e.test: its arguments, its report, its exit status."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e import FOCUS, SKIP, main

ROOT = Path(__file__).parents[2]

PASSED = '<testcase name="[It] [sig-network] Services should serve [Conformance]" status="passed"/>'
FAILED = '<testcase name="[It] [sig-network] Conntrack" status="failed"><failure>x</failure></testcase>'
SKIPPED = '<testcase name="[It] [sig-apps] Deployment" status="skipped"><skipped/></testcase>'
SUITE = '<testcase name="[SynchronizedBeforeSuite]" status="passed"/>'
SUITE_FAILED = '<testcase name="[SynchronizedBeforeSuite]" status="failed"><error>x</error></testcase>'


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Make a file."""
    path = tmp_path / "kubeconfig"
    path.write_text("{}")
    return path


def program(folder: Path, cases: str | None, status: int = 0) -> Path:
    """Make a program that writes its arguments, and a report with these cases, and ends with the status."""
    lines = ["#!/bin/sh", f'printf "%s\\n" "$@" > {folder}/arguments']
    if cases is not None:
        lines.append(
            f"printf %s '<testsuites><testsuite>{cases}</testsuite></testsuites>' > {folder}/junit_01.xml"
        )
    path = folder / "e2e.test"
    path.write_text("\n".join([*lines, f"exit {status}\n"]))
    path.chmod(0o755)
    return path


def run(folder: Path, kubeconfig: Path, cases: str | None, status: int = 0) -> int:
    return main([str(program(folder, cases, status)), str(kubeconfig), f"--report-dir={folder}"])


@pytest.mark.parametrize(
    ("cases", "program_status", "status", "said"),
    [
        (PASSED + SKIPPED + SUITE, 0, 0, "test-e2e: 1 of 1 tests passed\n"),
        (
            PASSED + FAILED,
            1,
            1,
            "test-e2e: 1 of 2 tests passed\nfailed: [It] [sig-network] Conntrack\n",
        ),
        (SUITE_FAILED, 1, 1, "test-e2e: 0 of 1 tests passed\nfailed: [SynchronizedBeforeSuite]\n"),
        (PASSED, 3, 1, "test-e2e: 1 of 1 tests passed\n"),
    ],
    ids=["passed", "failed", "suite", "status"],
)
def test_the_results_are_counted(
    tmp_path: Path,
    kubeconfig: Path,
    capfd: pytest.CaptureFixture[str],
    cases: str,
    program_status: int,
    status: int,
    said: str,
) -> None:
    assert run(tmp_path, kubeconfig, cases, program_status) == status
    assert capfd.readouterr().out == said


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (None, "wrote no report to {}/junit_01.xml (exit status 4)"),
        (SKIPPED, "{}/junit_01.xml: no test was run (exit status 4)"),
        ("<", "{}/junit_01.xml: not well-formed"),
    ],
    ids=["missing", "none", "cut"],
)
def test_without_a_result_it_fails(
    tmp_path: Path, kubeconfig: Path, capfd: pytest.CaptureFixture[str], cases: str | None, said: str
) -> None:
    (tmp_path / "junit_01.xml").write_text(f"<testsuites>{PASSED}</testsuites>")  # of an earlier run
    assert run(tmp_path, kubeconfig, cases, 4) == 2
    assert said.format(tmp_path) in capfd.readouterr().err


def test_the_program_gets_its_flags(tmp_path: Path, kubeconfig: Path) -> None:
    assert run(tmp_path, kubeconfig, PASSED) == 0
    assert (tmp_path / "arguments").read_text().splitlines() == [
        f"--kubeconfig={kubeconfig}",
        "--provider=skeleton",
        f"--report-dir={tmp_path}",
        f"--ginkgo.focus={FOCUS}",
        f"--ginkgo.skip={SKIP}",
    ]


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        (
            "[sig-network] Services should serve a basic endpoint from pods [Conformance]",
            True,
        ),
        ("[sig-network] Networking Granular Checks: Services should function for client IP", True),
        ("[sig-network] Conntrack should be able to preserve UDP traffic when server pod cycles", True),
        ("[sig-network] EndpointSliceMirroring should mirror a custom Endpoint", True),
        ("[sig-network] Services should be rejected when no endpoints exist [Slow]", False),
        ("[sig-network] Networking IPv6 [Feature:Networking-IPv6]", False),
        ("[sig-network] Netpol Services", False),
        ("[sig-apps] Deployment Services", False),
    ],
)
def test_which_tests_are_chosen(name: str, chosen: bool) -> None:
    assert bool(re.search(FOCUS, name) and not re.search(SKIP, name)) == chosen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/nowhere", "/dev/null"], "test-e2e: E2E_TEST: /nowhere is not a program"),
        (["/bin", "/dev/null"], "test-e2e: E2E_TEST: /bin is not a program"),
        (["/bin/true", "/nowhere"], "test-e2e: KUBECONFIG: /nowhere cannot be read"),
    ],
)
def test_a_wrong_file_is_named(capfd: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert main(arguments) == 2
    assert said in capfd.readouterr().err


def make(variables: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `make test-e2e` with these variables. The result may be a failure."""
    flags = "-C", str(ROOT), "--no-print-directory", "--assume-old=install"
    command = ["make", *flags, "test-e2e", *variables]
    return subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)


@pytest.mark.parametrize("variables", [[], ["E2E_TEST=/bin/true"], ["KUBECONFIG=/dev/null"]], ids=str)
def test_make_names_missing_variables(variables: list[str]) -> None:
    done = make(variables)
    assert done.returncode == 2
    assert "make test-e2e E2E_TEST=path/to/e2e.test KUBECONFIG=FILE" in done.stderr


def test_make_runs_it(tmp_path: Path, kubeconfig: Path) -> None:
    variables = [f"E2E_TEST={program(tmp_path, None, 5)}", f"KUBECONFIG={kubeconfig}"]
    done = make(variables)
    assert done.returncode == 2
    assert "build/e2e/junit_01.xml (exit status 5)" in done.stderr
    assert f"--kubeconfig={kubeconfig}" in (tmp_path / "arguments").read_text()
