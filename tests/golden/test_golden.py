"""Golden scripts: `kproxy compile` prints exactly CASE.nft for CASE.yaml.

A case begins with lines `# compile FLAGS`. Each line stands for one script: CASE.nft, or CASE-VERSION.nft if
a flag names an nft version. `make golden` rewrites them.
"""

from __future__ import annotations

import difflib
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from netns_lab.netns import in_fresh_namespace

from kproxy.cli import main

HERE = Path(__file__).parent
COMMON = "--node-name n1 --node-ip 192.0.2.1,2001:db8::1 --state-dir /nonexistent"


class Case(NamedTuple):
    manifests: Path
    flags: str

    @property
    def version(self) -> str:
        found = re.search(r"--nft-version (\S+)", self.flags)
        return found[1] if found else ""

    @property
    def script(self) -> Path:
        suffix = f"-{self.version}" if self.version else ""
        return HERE / f"{self.manifests.stem}{suffix}.nft"

    def __str__(self) -> str:
        return self.script.stem


CASES = [
    Case(path, flags)
    for path in sorted(HERE.glob("*.yaml"))
    for flags in re.findall(r"^# compile ?(.*)$", path.read_text(), re.MULTILINE)
]
LOADABLE = [case for case in CASES if case.version in ("", "1.0.6")]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_script(case: Case, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config) -> None:
    status = main(["compile", "-f", str(case.manifests), *shlex.split(f"{COMMON} {case.flags}")])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    if pytestconfig.getoption("--rewrite-golden", default=False):
        case.script.write_text(out)
    expected = case.script.read_text()
    assert out == expected, "".join(difflib.unified_diff(expected.splitlines(True), out.splitlines(True)))


def test_each_script_belongs_to_a_case() -> None:
    assert {case.script for case in CASES} == set(HERE.glob("*.nft"))


def nft(script: str) -> str:
    done = subprocess.run(["nft", "-f", "-"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.lab
@pytest.mark.parametrize("case", LOADABLE, ids=str)
def test_a_script_and_its_listing_load_again(case: Case) -> None:
    script = case.script.read_text()

    def load(*scripts: str) -> str:
        for each in scripts:
            nft(each)
        return nft("list table ip kproxy") + nft("list table ip6 kproxy")

    listed = in_fresh_namespace(lambda: load(script, script))
    assert in_fresh_namespace(lambda: load(listed)) == listed
