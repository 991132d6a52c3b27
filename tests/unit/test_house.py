"""The rules of the house that a tool can check.

What decides (the pure packages) must not be able to do anything: it imports
only what is listed here, and calls nothing that reads or writes. kproxy does
not know the lab. Every module says why it exists. No file names a path that
exists only on somebody's machine.
"""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Rooms that can only compute, below kproxy/. So can every folder called `core`, and every `__init__.py`.
PURE = (
    *("model.py", "gatewayapi.py", "problems.py", "limits.py", "printable.py", "digest.py"),
    *("decode", "resolve", "nft", "table", "controlplane", "settings", "show", "explain", "picture"),
)

# What pure code may import besides itself: data structures, arithmetic, text.
# A new entry must be free of clock, chance, file, socket, log and thread.
ALLOWED = {
    *(
        "abc",
        "array",
        "binascii",
        "bisect",
        "collections",
        "dataclasses",
        "difflib",
        "enum",
        "errno",
        "fractions",
        "functools",
        "hashlib",
        "html",
    ),
    *("heapq", "types"),
    *(
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "shlex",
        "string",
        "struct",
        "textwrap",
        "typing",
    ),
    *("__future__", "msgspec", "_blake2", "datetime", "google"),
}
# datetime is more than that, but the arithmetic of dates is no clock.
CLOCKS = {"now", "today", "utcnow"}
# sys is more than that, but how this machine lays out an integer is a constant, and equal texts may be one.
ALLOWED_OF_SYS = {"byteorder", "intern"}
EFFECTS_WITHOUT_IMPORT = {"open", "print", "input", "breakpoint", "exec", "eval", "__import__"}

GENERATED = re.compile(
    r"^(\.git|\.venv|\.coverage.*|\.vagrant|\.hypothesis|__pycache__|build|\..*_cache|.*\.egg-info)$"
)
# A folder of somebody's machine, at the start of an absolute path. Written so that it does not match itself.
OWN_PATH = re.compile(r"(?:(?<=file://)|(?<![\w.~$}>)/*-]))/(?:work/|(?:home|Users)/\w)")


def module_file(name: str) -> Path | None:
    """The file of module `name` (dotted, ours), or None when there is no such module."""
    path = ROOT.joinpath(*name.split("."))
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def is_pure(file: Path) -> bool:
    below = file.relative_to(ROOT / "kproxy").parts
    return below[0] in PURE or "core" in below or below == ("__init__.py",)


def must_be_pure(file: Path) -> bool:
    """Whoever imports a pure module runs the `__init__.py` of each folder that it is in."""
    return is_pure(file) or (file.name == "__init__.py" and file.parent.name != "cli")


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported, wherever it stands; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            parents = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def may_import(name: str) -> bool:
    top, _, rest = name.partition(".")
    if top == "sys":
        return not rest or rest in ALLOWED_OF_SYS
    if top != "kproxy":
        return top in ALLOWED
    # kproxy.a.b is the module b of a, or the name b in the module a.
    file = module_file(name) or module_file(name.rpartition(".")[0])
    return file is not None and is_pure(file)


def impurities(source: str, package: str) -> Iterator[str]:
    """What `source`, a module of `package`, does that pure code may not."""
    tree = ast.parse(source)
    for line, name in imported(tree, package):
        if not may_import(name):
            yield f"line {line}: imports {name}"
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in EFFECTS_WITHOUT_IMPORT:
                yield f"line {node.lineno}: calls {name}"
            case ast.Attribute(value=ast.Name(id="sys"), attr=name) if name not in ALLOWED_OF_SYS:
                yield f"line {node.lineno}: uses sys.{name}"
            case ast.Attribute(value=ast.Name(id="datetime" | "date"), attr=name) if name in CLOCKS:
                yield f"line {node.lineno}: uses {name}"


def lab_imports(source: str) -> list[str]:
    names = imported(ast.parse(source), "kproxy")
    return [f"line {line}: imports {name}" for line, name in names if name.split(".")[0] == "netns_lab"]


def body_lines(source: str) -> Iterator[int]:
    """Of each function in `source`: its lines below the signature, without the docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def own_paths(text: str) -> list[str]:
    lines = enumerate(text.splitlines(), 1)
    return [f"line {number}: {line.strip()}" for number, line in lines if OWN_PATH.search(line)]


def files(folder: Path) -> Iterator[Path]:
    """Every file below, but what tools generate. Not git's list: a fresh machine has no git."""
    for entry in sorted(folder.iterdir()):
        if GENERATED.match(entry.name) or entry.is_symlink():
            continue
        if entry.is_dir():
            yield from files(entry)
        else:
            yield entry


MODULES = [file for file in files(ROOT / "kproxy") if file.suffix == ".py"]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", [file for file in MODULES if must_be_pure(file)], ids=name_of)
def test_pure_code_can_only_compute(file: Path) -> None:
    package = ".".join(file.relative_to(ROOT).parts[:-1])
    assert list(impurities(file.read_text(), package)) == []


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_kproxy_does_not_know_the_lab(file: Path) -> None:
    assert lab_imports(file.read_text()) == []


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_every_module_says_why_it_exists(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))


def test_only_one_module_calls_the_decoder_of_json() -> None:
    """Its exceptions are of many types, which `decode/text.py` turns into one."""
    calls = re.compile(r"msgspec\.json\.(decode|Decoder)\(")
    callers = [path for path in sorted((ROOT / "kproxy").rglob("*.py")) if calls.search(path.read_text())]
    assert [f"{path.parent.name}/{path.name}" for path in callers] == ["decode/text.py"]


WRITES_ITSELF = {
    *("output.py", "progress.py", "__init__.py", "help.py", "man.py", "parser.py", "completion.py"),
    *("get.py", "compile_.py", "dns.py", "env.py", "version.py", "cleanup.py", "diff.py"),
}
"""Modules that write scripts, documents, texts of kproxy itself, or tables, which escape their cells."""


def test_text_for_people_is_escaped() -> None:
    """What describes objects goes through the functions of `cli/output.py` that escape it."""
    raw = re.compile(r"(?<![\w.])(print|write)\((?!as_json|json\.|\"[^\"]*\"\))")
    found = {path.name for path in (ROOT / "kproxy" / "cli").glob("*.py") if raw.search(path.read_text())}
    assert found - WRITES_ITSELF == set()


def test_functions_are_short() -> None:
    """Half of them have at most 7 lines, nine of ten at most 20."""
    sizes = sorted(size for file in MODULES for size in body_lines(file.read_text()))
    assert len(sizes) > 1000
    assert statistics.median(sizes) <= 7
    assert statistics.quantiles(sizes, n=10)[-1] <= 20


def test_no_file_names_a_path_of_a_developers_machine() -> None:
    found = []
    for file in files(ROOT):
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(file)}, {hit}" for hit in own_paths(text)]
    assert found == []


def test_no_two_test_modules_have_one_name() -> None:
    """pytest takes only one of them, unless their folders are packages."""
    modules = [file for file in files(ROOT / "tests") if file.name.startswith("test_")]
    alone = [file.name for file in modules if not file.with_name("__init__.py").exists()]
    assert sorted(set(alone)) == sorted(alone)


@pytest.mark.parametrize("entry", PURE)
def test_the_list_of_pure_code_names_what_exists(entry: str) -> None:
    assert (ROOT / "kproxy" / entry).exists()


# The rules themselves: what must fail does, and what is fine passes.


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import socket", "line 1: imports socket"),
        ("import os.path", "line 1: imports os.path"),
        ("from time import monotonic", "line 1: imports time.monotonic"),
        ("def f() -> None:\n    import logging", "line 2: imports logging"),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import random", "line 3: imports random"),
        ("import pyroute2", "line 1: imports pyroute2"),
        ("import yaml", "line 1: imports yaml"),
        ("import kproxy.kernel", "line 1: imports kproxy.kernel"),
        ("from kproxy import kernel", "line 1: imports kproxy.kernel"),
        ("from kproxy.kernel import conntrack", "line 1: imports kproxy.kernel.conntrack"),
        ("from kproxy.sources.files import read", "line 1: imports kproxy.sources.files.read"),
        ("from kproxy.state import store", "line 1: imports kproxy.state.store"),
        ("from ..kernel import netlink", "line 1: imports kproxy.kernel.netlink"),
        ("from kproxy import nonsense_that_is_not_there as x\nopen('f')", "line 2: calls open"),
        ("print(1)", "line 1: calls print"),
        ("import sys\nsys.stdout.write('')", "line 2: uses sys.stdout"),
        ("from datetime import datetime\ndatetime.now()", "line 2: uses now"),
        ("from sys import argv", "line 1: imports sys.argv"),
    ],
)
def test_an_impurity_is_found(source: str, complaint: str) -> None:
    assert list(impurities(source, "kproxy.nft")) == [complaint]


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "import sys\nlittle = sys.byteorder == 'little'",
        "from datetime import datetime\nparsed = datetime.fromisoformat('2026-01-05')",
        "from msgspec import Struct",
        "from collections.abc import Mapping",
        "import kproxy.model",
        "from kproxy.model import Service",
        "from kproxy import __version__",
        "from . import transaction",
        "from ..model import Service",
        "from kproxy.controlplane.ledger import Claim",
    ],
)
def test_pure_code_passes(source: str) -> None:
    assert list(impurities(source, "kproxy.nft")) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("def f(): return 1", [1]),
        ('def f():\n    """Why."""\n', [0]),
        ('async def f(\n    a,\n):\n    """Why."""\n\n    await a\n    # and\n    return a', [3]),
        ("class C:\n    def f(self):\n        def g():\n            pass\n\n        g()", [4, 1]),
    ],
)
def test_the_lines_of_functions_are_counted(source: str, lines: list[int]) -> None:
    assert list(body_lines(source)) == lines


@pytest.mark.parametrize("source", ["import netns_lab", "import netns_lab.lab", "from netns_lab import lab"])
def test_an_import_of_the_lab_is_found(source: str) -> None:
    assert lab_imports(source)


@pytest.mark.parametrize("folder", ["work/x", "home/me", "Users/me"])
@pytest.mark.parametrize("before", ["", "see ", '"', "path=", "(", "file://"])
def test_a_path_of_ones_own_is_found(before: str, folder: str) -> None:
    line = f"{before}/{folder}"
    assert own_paths(f"first\n{line}") == [f"line 2: {line}"]


@pytest.mark.parametrize(
    "text", ["artwork/x", "~/work/x", "$PWD/work/x", "https://x.org/home/me", "/homework/"]
)
def test_other_paths_pass(text: str) -> None:
    assert own_paths(text) == []
