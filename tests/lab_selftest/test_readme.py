"""The examples in the lab's README work as shown."""

import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from netns_lab import registry

pytestmark = pytest.mark.lab

README = (Path(__file__).parents[2] / "netns-lab/README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_console_session() -> None:
    name = secrets.token_hex(2)  # as long as "demo", which may be another lab's name
    (session,) = blocks("console")
    try:
        for step in session.replace("demo", name).split("# ")[1:]:
            command, _, expected = step.partition("\n")
            if "curl" in command and not shutil.which("curl"):
                continue
            command = re.sub(r"^netns-lab", f"{sys.executable} -m netns_lab", command)
            done = subprocess.run(command, shell=True, capture_output=True, text=True)
            assert (done.stdout, done.stderr) == (expected, "")
    finally:
        registry.remove(name)


def test_the_python_example() -> None:
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
