"""exec probes, with commands on this host instead of in a container."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from kproxy.cli import settings_from
from kproxy.limits import PROBE_OUTPUT
from kproxy.model import ExecAction, Probe
from kproxy.probes.core.command import CommandTemplate
from kproxy.probes.core.readiness import ProbeOutcome, ProbeResult
from kproxy.probes.exec import ExecRunner
from kproxy.probes.prober import Prober
from kproxy.problems import UsageError
from tests.cases import cases
from tests.unit.make import decoded, manifest, name

HERE = "env POD={pod}"
"""A template that runs a command on this host."""


POD = decoded(str(manifest("Pod", "web-1"))).state.pods[0]


def run(*command: str, template: str = HERE, timeout: int = 10) -> ProbeResult:
    prober = Prober(ExecRunner(CommandTemplate(template)), lambda: None)
    probe, allowance = Probe(ExecAction(command), timeout=timeout), prober._network.allowance()
    return asyncio.run(prober._once(POD, "c", probe, allowance))


def shell(script: str, timeout: int = 10) -> ProbeResult:
    return run("sh", "-c", script, timeout=timeout)


@pytest.mark.parametrize(
    ("script", "outcome", "message"),
    [
        ("exit 0", ProbeOutcome.SUCCESS, ""),
        ("echo fine", ProbeOutcome.SUCCESS, "fine\n"),
        ("exit 3", ProbeOutcome.FAILURE, "exit status 3"),
        ("echo out; echo err >&2; exit 1", ProbeOutcome.FAILURE, "out\nerr\n"),
        ("printf '\\377'; exit 1", ProbeOutcome.FAILURE, "\ufffd"),
        ("kill -9 $$", ProbeOutcome.FAILURE, "killed by signal 9"),
        ("echo $POD", ProbeOutcome.SUCCESS, "web-1\n"),
        ("cat", ProbeOutcome.SUCCESS, ""),
    ],
)
def test_a_command(script: str, outcome: ProbeOutcome, message: str) -> None:
    assert shell(script) == ProbeResult(outcome, message)


def test_no_shell_interprets_the_command() -> None:
    words = ["$(id)", "; rm -rf /", "{pod}", "a b", "'", "*", ""]
    result = run("printf", "%s|", *words)
    assert result.message == "".join(f"{word}|" for word in words)


def test_output_is_truncated() -> None:
    result = shell("head -c 3000000 /dev/zero | tr '\\0' x; exit 1")
    assert result == ProbeResult(ProbeOutcome.FAILURE, "x" * PROBE_OUTPUT)


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    """Whether the process ends within a minute."""
    end = time.monotonic() + 60
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def test_a_command_that_times_out_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = shell(
        f"echo $$ >> {pids}; sleep 60 & echo $! >> {pids}; trap '' TERM; wait; sleep 60", timeout=5
    )
    assert result.outcome is ProbeOutcome.FAILURE
    assert result.timed_out
    assert result.message.endswith("timed out after 5s")
    found = [int(line) for line in pids.read_text().split()]
    assert len(found) == 2
    assert all(gone(pid) for pid in found)


def test_a_command_that_is_cancelled_while_it_starts_is_killed_with_its_children(tmp_path: Path) -> None:
    """It is cancelled before asyncio reports that it has started."""
    pid = tmp_path / "pid"

    async def main() -> None:
        command = ("sh", "-c", f"sleep 60 & echo $! > {pid}; wait")
        task = asyncio.create_task(ExecRunner(CommandTemplate("env")).run(POD, "", command))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while not pid.exists() or not pid.read_text().strip():
            time.sleep(0.01)  # block the event loop, so that it cannot report the start
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert gone(int(pid.read_text()))


def test_a_command_with_endless_output_is_killed() -> None:
    result = run("yes", timeout=1)
    assert (result.outcome, result.timed_out) == (ProbeOutcome.FAILURE, True)


def test_a_child_that_outlives_the_command_does_not_delay_the_result(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begin = time.monotonic()
    result = shell(f"echo ready; sleep 60 & echo $! > {pid}", timeout=30)
    try:
        assert result == ProbeResult(ProbeOutcome.SUCCESS, "ready\n")
        assert time.monotonic() - begin < 20
    finally:
        os.kill(int(pid.read_text()), 9)


@cases(
    """
    template              command          message
    no-such-runner {pod}  true             no-such-runner: No such file or directory
    /etc/passwd           true             /etc/passwd: Permission denied
    env                   no-such-command  no-such-command
    netns                 true             web-1
    """
)
def test_a_command_that_cannot_be_started_is_a_failure(
    template: str, command: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)  # with folders that every user can read
    result = run(command, template=template)
    assert result.outcome is ProbeOutcome.FAILURE
    assert message in result.message


def test_an_argument_list_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    assert run("echo", "x" * 4_000_000) == ProbeResult(ProbeOutcome.FAILURE, "env: Argument list too long")


OWN = "run --in={namespace}/{pod}/{container} '{pod} {pod}' --"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("netns", ["ip", "netns", "exec", "web-1"]),
        ("docker", ["docker", "exec", "web-1"]),
        ("podman", ["podman", "exec", "web-1-c"]),
        ("nerdctl", ["nerdctl", "exec", "web-1"]),
        (OWN, ["run", "--in=shop/web-1/c", "web-1 web-1", "--"]),
    ],
)
def test_templates(template: str, words: list[str]) -> None:
    assert CommandTemplate(template).words(name("shop/web-1"), "c", ["ls", "{pod}"]) == [
        *words,
        "ls",
        "{pod}",
    ]


@pytest.mark.parametrize(
    ("template", "message"), [("", "is empty"), ("'a", "No closing quotation"), ("a {pods}", "{pods}")]
)
def test_invalid_templates(template: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CommandTemplate(template)
    with pytest.raises(UsageError, match=message):
        settings_from(["run", "--manifests", "x", "--probe-exec", template])


def test_the_default_template_is_netns() -> None:
    settings = settings_from(["run", "--manifests", "x"])
    assert settings.probe_exec.words(name("web-1"), "c", ["ls"]) == ["ip", "netns", "exec", "web-1", "ls"]
