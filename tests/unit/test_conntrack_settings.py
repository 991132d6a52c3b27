"""The kernel's settings of connection tracking: which values are wanted, and that they are only raised."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kproxy.cli import settings_from
from kproxy.kernel.sysctl import raise_settings
from kproxy.problems import CommandLineError
from kproxy.settings.derived import conntrack_sysctls

MAXIMUM, LIBERAL = "nf_conntrack_max", "nf_conntrack_tcp_be_liberal"
ESTABLISHED, CLOSE_WAIT = "nf_conntrack_tcp_timeout_established", "nf_conntrack_tcp_timeout_close_wait"
UDP, UDP_STREAM = "nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"
DEFAULTS = {MAXIMUM: 131072, ESTABLISHED: 86400, CLOSE_WAIT: 3600}


@pytest.mark.parametrize(
    ("flags", "cpus", "expected"),
    [
        ("", 2, DEFAULTS),
        ("", 64, DEFAULTS | {MAXIMUM: 64 * 32768}),
        ("--conntrack-max-per-core=0", 64, {ESTABLISHED: 86400, CLOSE_WAIT: 3600}),
        ("--conntrack-max-per-core=100000", 2, DEFAULTS | {MAXIMUM: 200000}),
        ("--conntrack-min=0", 2, DEFAULTS | {MAXIMUM: 65536}),
        ("--conntrack-tcp-timeout-established=0s --conntrack-min=9", 1, {MAXIMUM: 32768, CLOSE_WAIT: 3600}),
        ("--conntrack-tcp-timeout-close-wait=0s", 1, {MAXIMUM: 131072, ESTABLISHED: 86400}),
        ("--conntrack-tcp-be-liberal", 1, DEFAULTS | {LIBERAL: 1}),
        ("--conntrack-tcp-be-liberal=false", 1, DEFAULTS),
        (
            "--conntrack-udp-timeout=90s --conntrack-udp-timeout-stream=5m",
            1,
            DEFAULTS | {UDP: 90, UDP_STREAM: 300},
        ),
        ("-f here", 64, {}),
        ("-f here --conntrack-tcp-timeout-close-wait=1h", 64, {CLOSE_WAIT: 3600}),
        ("-f here --conntrack-tcp-be-liberal", 64, {LIBERAL: 1}),
        ("-f here --conntrack-min=500000", 2, {MAXIMUM: 500000}),
        ("-f here --conntrack-max-per-core=10 --conntrack-min=0", 2, {MAXIMUM: 20}),
    ],
)
def test_wanted_values(flags: str, cpus: int, expected: dict[str, int]) -> None:
    assert conntrack_sysctls(settings_from(["run", *flags.split()]), cpus) == expected


@pytest.mark.parametrize("flag", ["--conntrack-min=-1", "--conntrack-max-per-core=many"])
def test_numbers_are_not_negative(flag: str) -> None:
    with pytest.raises(CommandLineError, match="is not a number"):
        settings_from(["run", flag])


def test_values_are_raised_and_never_lowered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = {MAXIMUM: 262144, ESTABLISHED: 432000, CLOSE_WAIT: 60, UDP: 30, LIBERAL: 0, "hashsize": 1024}
    for name, value in before.items():
        (tmp_path / name).write_text(f"{value}\n")

    def values() -> dict[str, int]:
        return {name: int((tmp_path / name).read_text()) for name in before}

    with caplog.at_level(logging.INFO):
        raise_settings(DEFAULTS | {LIBERAL: 1, UDP: 30}, tmp_path, tmp_path / "hashsize")
    after = before | {CLOSE_WAIT: 3600, LIBERAL: 1, "hashsize": 131072 // 4}
    assert values() == after
    assert caplog.messages == [
        f"set {CLOSE_WAIT} from 60 to 3600",
        f"set {LIBERAL} from 0 to 1",
        "set hashsize from 1024 to 32768",
    ]
    raise_settings({MAXIMUM: 300000}, tmp_path, tmp_path / "hashsize")
    assert values() == after | {MAXIMUM: 300000, "hashsize": 75000}


def test_failures_are_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / CLOSE_WAIT).write_text("60")
    (tmp_path / ESTABLISHED).write_text("no number")
    raise_settings({UDP: 1, ESTABLISHED: 1, CLOSE_WAIT: 3600}, tmp_path, load=lambda: None)
    (message,) = caplog.messages
    assert message.startswith(f"cannot change connection tracking: {UDP} to 1: No such file or directory; ")
    assert f"{ESTABLISHED} to 1: invalid literal" in message
    assert (tmp_path / CLOSE_WAIT).read_text() == "3600"


def test_settings_that_exist_only_after_the_module_was_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loads = []

    def load() -> None:
        loads.append(1)
        (tmp_path / CLOSE_WAIT).write_text("60")

    for _ in range(2):
        raise_settings({CLOSE_WAIT: 3600}, tmp_path, load=load)
    assert (loads, (tmp_path / CLOSE_WAIT).read_text(), caplog.messages) == ([1], "3600", [])


def test_no_setting_loads_nothing() -> None:
    raise_settings({}, Path("/nowhere"), load=lambda: pytest.fail("loads the module"))
