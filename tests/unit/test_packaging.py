"""What is installed is what is pinned, and the commands that people and CI type exist."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SCRIPTS = [*sorted((ROOT / "scripts").iterdir()), ROOT / ".ci" / "run"]
PROJECTS = ("pyproject.toml", "netns-lab/pyproject.toml")

RUN = "requirements-run.txt"


def lines(path: str) -> list[str]:
    """The lines of a file of requirements that are not comments."""
    return [line for line in (ROOT / path).read_text().splitlines() if line and not line.startswith("#")]


INCLUDED, *OTHERS = lines("requirements.txt")
REQUIREMENTS = lines(RUN) + OTHERS
PINS = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in REQUIREMENTS}


def project(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())


def unpinned(requirements: list[str]) -> list[str]:
    """Those of `requirements` that hold here (their markers) and that no pin satisfies."""
    found = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            pin = PINS.get(canonicalize_name(requirement.name))
            if pin is None or pin not in requirement.specifier:
                found.append(str(requirement))
    return found


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_every_requirement_is_pinned_exactly(line: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line)


@pytest.mark.parametrize("path", PROJECTS)
def test_what_a_project_needs_to_run_and_to_build_is_pinned(path: str) -> None:
    declared = project(path)
    optional = [
        name for names in declared["project"].get("optional-dependencies", {}).values() for name in names
    ]
    needed = declared["project"]["dependencies"] + optional + declared["build-system"]["requires"]
    assert unpinned(needed) == []


@pytest.mark.parametrize("name", PINS)
def test_what_a_pinned_package_needs_is_pinned_too(name: str) -> None:
    """pip is told --no-deps: a missing one would be missing, or be whatever the distribution has."""
    assert metadata.version(name) == PINS[canonicalize_name(name)]
    assert unpinned(metadata.requires(name) or []) == []


def below(requirements: list[str]) -> set[str]:
    """The names of these packages and of all that they need, on any of the Pythons of both Debians."""
    found: set[str] = set()
    missing = [Requirement(text) for text in requirements]
    while missing:
        one = missing.pop()
        name = canonicalize_name(one.name)
        if name not in found and any(holds(one, python) for python in ("3.11", "3.13")):
            found.add(name)
            missing += map(Requirement, metadata.requires(name) or [])
    return found


def holds(requirement: Requirement, python: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": "", "python_version": python})


def test_the_package_has_what_kproxy_needs_and_nothing_else() -> None:
    assert f"-r {RUN}" == INCLUDED
    declared = project("pyproject.toml")["project"]
    needed = below(declared["dependencies"])
    assert {canonicalize_name(line.partition("==")[0]) for line in lines(RUN)} == needed


def test_no_version_is_accepted_that_was_never_tested() -> None:
    """pip keeps a version that is already installed if the project accepts it."""
    declared = project("pyproject.toml")["project"]
    for text in declared["dependencies"]:
        requirement = Requirement(text)
        pin = PINS[canonicalize_name(requirement.name)]
        assert str(requirement.specifier) == f">={'.'.join(pin.split('.')[:2])}"


def test_an_unpinned_requirement_is_found() -> None:
    asked = ["pytest>=9999", "not-there", "not-here; python_version < '3'", "pytest>=8"]
    assert unpinned(asked) == ["pytest>=9999", "not-there"]


def test_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (help .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony
    # Under `make test` this make would think itself a part of that one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "-C", str(ROOT), "--no-print-directory"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^ *make (\S+)", shown, re.MULTILINE) == phony[1].split()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_bash_that_parses_and_may_be_run(script: Path) -> None:
    assert script.read_text().startswith("#!/usr/bin/env bash\n")
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_ci_types_what_people_type() -> None:
    assert re.search(r"^exec make test\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_the_forge_does_on_both_debians() -> None:
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())["jobs"]["test"]
    assert job["strategy"]["matrix"]["debian"] == ["bookworm", "trixie"]
    assert job["steps"][-1]["run"] == "sudo make test coverage"


def test_the_package_is_tried_on_both_debians() -> None:
    assert "scripts/try-deb" in (ROOT / "scripts" / "fresh").read_text()


def test_the_vm_is_provisioned_by_the_script_that_make_fresh_proves() -> None:
    assert 'path: "scripts/provision"' in (ROOT / "Vagrantfile").read_text()
    assert "scripts/provision" in (ROOT / "scripts" / "fresh").read_text()
