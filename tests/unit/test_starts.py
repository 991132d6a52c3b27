"""kproxy as a process: what it imports for which command, what it logs, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from netns_lab.netns import in_fresh_namespace

from tests.support import PATIENCE, open_for_reader
from tests.unit.make import service

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run code in a Python that has imported nothing of kproxy; `text` is its standard input."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)


def test_a_verbose_log_is_kproxys_own() -> None:
    done = python("""
import logging
from kproxy.daemon.start import configure_log
configure_log(verbose=True)
for name in ("pyroute2", "asyncio", "prometheus_client", "kproxy.reconcile.round"):
    logging.getLogger(name).debug("debug of %s", name)
    logging.getLogger(name).warning("warning of %s", name)
""")
    assert [line.partition(" ")[2] for line in done.stderr.splitlines()] == [
        "WARNING warning of pyroute2",
        "WARNING warning of asyncio",
        "WARNING warning of prometheus_client",
        "DEBUG debug of kproxy.reconcile.round",
        "WARNING warning of kproxy.reconcile.round",
    ]


def test_an_interrupted_command_ends_without_a_traceback(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "services.yaml")
    command = [sys.executable, "-m", "kproxy", "get", "svc", "-f", str(tmp_path / "services.yaml")]
    with (
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process,
        open_for_reader(tmp_path / "services.yaml"),
    ):
        # A signal just before Python calls `read` is noticed only when `read` returns, as in any program.
        for _ in range(12):
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
                break
        errors = process.stderr.read() if process.stderr else ""
    assert (process.returncode, errors) == (130, "kproxy: Interrupted.\n")


INTERRUPT_IMPORT = """
import builtins, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
original = builtins.__import__
def hook(name, *rest):
    if name.partition(".")[0] == "click":
        os.kill(os.getpid(), signal.SIGINT)
    return original(name, *rest)
builtins.__import__ = hook
from kproxy.__main__ import main
main()
"""
INTERRUPT_END = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from kproxy.__main__ import main
def end(status):
    os.kill(os.getpid(), signal.SIGINT)
    original(status)
original, os._exit = os._exit, end
sys.argv[1:] = ["version"]
main()
"""


@pytest.mark.parametrize("code", [INTERRUPT_IMPORT, INTERRUPT_END], ids=["imports", "after the command"])
def test_an_interrupt_beside_the_command_leaves_no_traceback(code: str) -> None:
    done = python(code)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("arguments", ["version", "get --help", "get svc -f - --state-dir /nonexistent"])
@pytest.mark.parametrize(
    ("shell", "output", "sentence"),
    [
        ('exec "$@"', full_disk, "Cannot write to standard output: No space left on device."),
        ('exec "$@"', closed_pipe, "Cannot write to standard output: Broken pipe."),
        ('exec "$@" >&-', full_disk, "Standard output is closed."),
    ],
)
def test_an_output_that_fails_is_a_sentence(
    arguments: str, shell: str, output: Callable[[], int], sentence: str
) -> None:
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "kproxy", *arguments.split()]
    descriptor = output()
    done = subprocess.run(
        command,
        cwd=ROOT,
        input=json.dumps(service()),
        stdout=descriptor,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(descriptor)
    assert (done.returncode, done.stderr) == (1, f"kproxy: {sentence}\n")


@pytest.mark.parametrize("shell", ['exec "$@" 2>/dev/full', 'exec "$@" 2>&-'])
@pytest.mark.parametrize(
    ("arguments", "status", "printed"),
    [("get svc -f - -f /nonexistent --state-dir /nonexistent", 1, "web "), ("get --wrong", 2, "")],
)
def test_errors_that_cannot_be_printed_change_nothing_else(
    arguments: str, status: int, printed: str, shell: str
) -> None:
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "kproxy", *arguments.split()]
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(service()), stdout=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == status
    assert printed in done.stdout
    assert "kproxy:" not in done.stdout
    assert "Usage" not in done.stdout


def test_no_file_takes_the_place_of_a_closed_standard_stream(tmp_path: Path) -> None:
    fifo = tmp_path / "services.yaml"
    os.mkfifo(fifo)
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "kproxy"]
    with subprocess.Popen([*shell, "get", "svc", "-f", fifo], cwd=ROOT) as program:
        with open_for_reader(fifo):
            streams = [Path(f"/proc/{program.pid}/fd/{number}") for number in range(3)]
            files = [str(stream.readlink()) for stream in streams]
        program.wait(PATIENCE)
    assert files == ["/dev/null"] * 3


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ('exec "$@" <&-', "is closed"),
        ('exec "$@" 0>/dev/null', "Bad file descriptor"),
    ],
)
def test_a_standard_input_that_cannot_be_read_is_a_problem(shell: str, message: str) -> None:
    command = ["sh", "-c", shell, "sh", sys.executable, "-m", "kproxy", "get", "svc", "-f", "-"]
    done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"kproxy: standard input: {message}\n")


LARGE = {"asyncio", "pyroute2", "nftables", "kubernetes", "prometheus_client", "h11"}
TABLES_ONLY = LARGE | {"msgspec", "yaml", "sqlite3", "logging", "kproxy.settings.flags"}
RARE = {"_hashlib", "difflib", "fractions", "locale", "kproxy.decode.routed", "kproxy.dns.core.names"}
"""What a Service and its slices in JSON do not need. OpenSSL is in _hashlib."""
RARE |= {"kproxy.sources.engines.core.merge", "kproxy.probes.exec", "kproxy.gateway.core"}
RARE |= {"concurrent.futures", "yaml"}
OPTIONAL = {"kproxy.dns.nameserver", "kproxy.explain", "kproxy.gateway.gateway", "kproxy.picture", "yaml"}
"""What a daemon does not need unless it serves names, the status page or routes, or reads YAML."""
LATER = {"prometheus_client"}
"""What a daemon imports after its first round."""
FROM_FILES = "--state-dir /nonexistent --node-name n1 -f -"
IMPORTED = """
import sys
from kproxy.cli import main
status = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        ("version", TABLES_ONLY),
        ("--version", TABLES_ONLY),
        ("--help", TABLES_ONLY),
        ("help", TABLES_ONLY),
        ("completion --help", TABLES_ONLY),
        ("get --help", LARGE | {"yaml", "kproxy.cli.get"}),
        ("run --help", LARGE | {"yaml", "kproxy.cli.run"}),
        (f"get svc {FROM_FILES}", LARGE),
        (f"describe svc {FROM_FILES}", LARGE),
        (f"compile {FROM_FILES}", LARGE | RARE),
    ],
)
def test_a_command_imports_only_what_it_needs(arguments: str, absent: set[str]) -> None:
    done = python(IMPORTED, *arguments.split(), text=json.dumps(service()))
    assert done.returncode == 0, done.stderr
    assert absent.intersection(done.stderr.split()) == set()


def test_a_question_to_a_running_kproxy_imports_only_what_it_needs() -> None:
    done = python("import sys, kproxy.cli.get, kproxy.cli.describe; print(*sys.modules)")
    absent = LARGE | {"logging", "sqlite3", "yaml", "kproxy.sources.manifests"}
    assert "kproxy.control.client" in done.stdout.split(), done.stderr
    assert absent.intersection(done.stdout.split()) == set()


def test_a_daemon_imports_only_what_it_needs() -> None:
    done = python("import sys, kproxy.cli.run, kproxy.sources.cluster.source; print(*sys.modules)")
    modules = done.stdout.split()
    assert "kproxy.daemon.daemon" in modules, done.stderr
    assert (OPTIONAL | LATER).intersection(modules) == set()


@pytest.mark.lab
def test_a_cleanup_imports_only_what_it_needs(tmp_path: Path) -> None:
    done = in_fresh_namespace(lambda: python(IMPORTED, "cleanup", "--state-dir", str(tmp_path)))
    assert done.returncode == 0, done.stderr
    absent = LARGE | RARE | {"logging", "subprocess", "kproxy.gateway.process"}
    assert absent.intersection(done.stderr.split()) == set()


@pytest.mark.lab
def test_a_sync_imports_only_what_it_needs(tmp_path: Path) -> None:
    def sync() -> tuple[int, str]:
        done = python(IMPORTED, "sync", "-f", "-", "--state-dir", str(tmp_path), text=json.dumps(service()))
        return done.returncode, done.stderr

    status, modules = in_fresh_namespace(sync)
    assert status == 0, modules
    assert (LARGE | RARE | {"json", "logging"}).intersection(modules.split()) == set()
