"""The man pages: complete, and without a word that roff would take for itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kproxy.cli.man import pages, write
from kproxy.settings.flags import flags_of
from kproxy.settings.verbs import VERBS

PAGES = pages()


def plain(text: str) -> str:
    """The text of a page without roff's escapes."""
    return re.sub(r"\\(f[BIR]|&)", "", text).replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\(ti", "~")


def test_there_is_a_page_for_each_verb_and_one_for_kproxy() -> None:
    assert list(PAGES) == ["kproxy.1", *(f"kproxy-{verb}.1" for verb in VERBS)]
    main = plain(PAGES["kproxy.1"])
    for verb in VERBS.values():
        assert f"\nkproxy-{verb.name}(1)\n" in main


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_has_every_flag_and_example(verb: str) -> None:
    text = plain(PAGES[f"kproxy-{verb}.1"])
    for flag in flags_of(verb):
        assert f"\n{flag.names}\n" in text
    for _, command in VERBS[verb].examples:
        assert f"\n{command}\n" in text


@pytest.mark.parametrize("name", PAGES)
def test_only_requests_look_like_requests(name: str) -> None:
    lines = PAGES[name].splitlines()
    requests = {line.split()[0] for line in lines if line[0] in ".'"}
    assert requests <= {".TH", ".SH", ".SS", ".TP", ".PP", ".nf", ".fi", ".nh", ".ad"}
    assert not [line for line in lines if re.search(r"(?<!\\)-|`|\\f[^BIR]", line)]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.skipif(not shutil.which("groff"), reason="no groff on this machine")
def test_groff_formats_a_page_without_a_warning(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-P-cbou", tmp_path / name],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{name.partition('.')[0].upper()}(1)")
