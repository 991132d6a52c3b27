"""Completion: what a real bash offers at Tab, and what stands behind it."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from select import select

import pytest

from kproxy.cli import main
from kproxy.control.channel import serve
from kproxy.settings.flags import flags_of
from kproxy.settings.verbs import VERBS
from kproxy.show.kinds import CATEGORIES, KINDS
from kproxy.show.snapshot import Snapshot
from tests.unit.make import NODE, RANGES, decoded, inventory_of

ROOT = Path(__file__).parents[2]
SETTING_UP = rb"""
bind 'set enable-bracketed-paste off'
bind -x '"\C-x\C-d": printf "<%s>\n" "$READLINE_LINE"'
eval "$(kproxy completion bash)"
PS1="rea""dy: "
"""
INSERT_COMPLETIONS, PRINT_LINE, CLEAR_LINE = b"\x1b*", b"\x18\x04", b"\x15"
PATIENCE = 60
"""Seconds for bash and kproxy on a busy machine."""


class Bash:
    """An interactive bash that completes kproxy's commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = folder / "bin" / "kproxy"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m kproxy "$@"\n')
        command.chmod(0o755)
        environment = {"PATH": f"{command.parent}:{os.defpath}", "TERM": "dumb", "PYTHONPATH": str(ROOT)}
        self._terminal, side = pty.openpty()
        termios.tcsetwinsize(side, (24, 1000))
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        os.close(side)
        self._type(SETTING_UP, "ready: ")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def _type(self, keys: bytes, expected: str) -> re.Match[str]:
        os.write(self._terminal, keys)
        """What is printed until bash reads keys again: only then does the terminal leave all to it."""
        printed = ""
        while not (found := re.search(f"(?s){expected}", printed)):
            assert select([self._terminal], [], [], PATIENCE)[0], printed
            printed += os.read(self._terminal, 65536).decode()
        return found

    def complete(self, line: str) -> str:
        """The line after all completions of its last word are inserted in place of it."""
        keys = CLEAR_LINE + line.encode() + INSERT_COMPLETIONS + PRINT_LINE
        return self._type(keys, r"<(kproxy [^<>]*?) ?>\r?\n.*ready: ")[1]


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bash]:
    folder = tmp_path_factory.mktemp("bash")
    (folder / "web.yaml").touch()
    (folder / "state").mkdir()
    session = Bash(folder)
    yield session
    session.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kproxy ", " ".join(["kproxy", *VERBS])),
        ("kproxy sy", "kproxy sync"),
        ("kproxy help ge", "kproxy help get"),
        ("kproxy get ", " ".join(["kproxy get", *KINDS, *CATEGORIES])),
        ("kproxy get ing", "kproxy get ingresses"),
        ("kproxy get svc,en", "kproxy get svc,endpoints svc,endpointslices"),
        ("kproxy get svc --outp", "kproxy get svc --output"),
        ("kproxy get svc -o ", "kproxy get svc -o wide name yaml json jsonpath= custom-columns="),
        ("kproxy doctor -o ", "kproxy doctor -o json"),
        ("kproxy graph --output=d", "kproxy graph --output=dot"),
        ("kproxy get svc --output=w", "kproxy get svc --output=wide"),
        ("kproxy get --output=wide svc --show", "kproxy get --output=wide svc --show-labels"),
        ("kproxy get svc -f w", "kproxy get svc -f web.yaml"),
        ("kproxy get svc --state-dir s", "kproxy get svc --state-dir state"),
        ("kproxy run --detect-local-mode B", "kproxy run --detect-local-mode BridgeInterface"),
        ("kproxy completion ", "kproxy completion bash zsh fish"),
        ("kproxy get svc --state-dir state ", "kproxy get svc --state-dir state"),  # no kproxy runs there
    ],
)
def test_bash_completes_a_line(bash: Bash, line: str, expected: str) -> None:
    assert bash.complete(line) == expected


def test_bash_offers_every_flag(bash: Bash) -> None:
    offered = bash.complete("kproxy run --").split()[2:]
    flags = [spelling for flag in flags_of("run") for spelling in flag.spellings]
    assert sorted(offered) == sorted(["--help", *(flag for flag in flags if flag.startswith("--"))])


OBJECTS = """
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: api}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: shop, namespace: two}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1}, spec: {}}
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("kproxy get svc --state-dir state ", "kproxy get svc --state-dir state api web"),
        ("kproxy get --state-dir=state svc api w", "kproxy get --state-dir=state svc api web"),
        ("kproxy describe --state-dir state svc/", "kproxy describe --state-dir state svc/api svc/web"),
        ("kproxy env --state-dir state w", "kproxy env --state-dir state web-1"),
        ("kproxy graph --state-dir state ", "kproxy graph --state-dir state api web"),
        ("kproxy get svc --state-dir state -n ", "kproxy get svc --state-dir state -n default two"),
        ("kproxy get svc --state-dir state -n two ", "kproxy get svc --state-dir state -n two shop"),
        ("kproxy get nothing --state-dir state ", "kproxy get nothing --state-dir state"),
    ],
)
def test_bash_offers_names_from_the_running_kproxy(bash: Bash, line: str, expected: str) -> None:
    async def snapshot() -> Snapshot:
        return Snapshot(inventory_of(decoded(OBJECTS), RANGES), [], [], NODE)

    async def ask() -> str:
        async with serve(bash.folder / "state", snapshot):
            return await asyncio.to_thread(bash.complete, line)

    assert asyncio.run(ask()) == expected


@pytest.mark.parametrize(
    ("shell", "words", "number", "printed"),
    [
        ("zsh", "kproxy sy", "1", f"plain\nsync\n{VERBS['sync'].summary}\n"),
        ("zsh", "kproxy get svc --output=w", "3", "plain\n--output=wide\n_\n"),
        ("fish", "kproxy sy", "sy", f"plain,sync\t{VERBS['sync'].summary}\n"),
        ("fish", "kproxy get svc --output=w", "--output=w", "plain,--output=wide\n"),
        ("bash", "kproxy get svc -f 'x", "4", "file,x\n"),
    ],
)
def test_completions_printed_for_a_shell(
    shell: str,
    words: str,
    number: str,
    printed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("_KPROXY_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", number)
    assert main([]) == 0
    assert capsys.readouterr() == (printed, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_run_kproxy_for_completions(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert f"_KPROXY_COMPLETE={shell}_complete" in capsys.readouterr().out
