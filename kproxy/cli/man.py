"""Makes the man pages from the tables of verbs and flags: `python -m kproxy.cli.man FOLDER` writes them.

The text is roff with the macros of man(7). Literal text is bold, and placeholders are italic.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import kproxy
from kproxy.settings.flags import Flag, flags_of
from kproxy.settings.verbs import DESCRIPTION, STATUSES, SUMMARY, VERBS, Verb, forms

SEE_ALSO = "kproxy(1), kubectl(1), kube-proxy(8), nft(8)"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    verbs = {f"kproxy-{verb.name}.1": _page(verb) for verb in VERBS.values()}
    return {"kproxy.1": _main_page(), **verbs}


def _main_page() -> str:
    return _joined(
        _title("kproxy", SUMMARY.rstrip(".")),
        _synopsis(None),
        [".SH DESCRIPTION", _text(DESCRIPTION), ".SH VERBS"],
        *(
            [".TP", rf"\fBkproxy\-{verb.name}\fR(1)", _text(verb.summary[0].upper() + verb.summary[1:] + ".")]
            for verb in VERBS.values()
        ),
        _statuses(),
        [".SH SEE ALSO", _text(SEE_ALSO.partition(", ")[2])],
    )


def _page(verb: Verb) -> str:
    flags = _flags(verb) if verb.takes_flags else []
    return _joined(
        _title(f"kproxy-{verb.name}", verb.summary),
        _synopsis(verb),
        [".SH DESCRIPTION", "\n.PP\n".join(map(_text, verb.description))],
        flags,
        [".SH EXAMPLES"],
        *([".TP", _text(what), _literal(command)] for what, command in verb.examples),
        _statuses(),
        [".SH SEE ALSO", _text(SEE_ALSO)],
    )


def _joined(*parts: Iterable[str]) -> str:
    return "".join(f"{line}\n" for part in parts for line in part)


def _title(name: str, summary: str) -> Iterator[str]:
    yield rf'.TH {_escaped(name.upper())} 1 "" "kproxy {kproxy.__version__}" "kproxy manual"'
    yield from (".nh", ".ad l")  # no hyphens within names, and no wide gaps
    yield ".SH NAME"
    yield rf"{_escaped(name)} \- {_text(summary)}"


def _synopsis(verb: Verb | None) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield ".nf"
    for form in forms(verb):
        literal, _, rest = form.partition(" [" if verb else " VERB")
        yield rf"\fB{_escaped(literal)}\fR{_escaped(form[len(literal) :])}" if rest else _literal(form)
    yield ".fi"


def _flags(verb: Verb) -> Iterator[str]:
    heading = ""
    yield ".SH FLAGS"
    for flag in flags_of(verb.name):
        if flag.group != heading:
            heading = flag.group
            yield f".SS {_escaped(heading)}"
        yield from _flag(flag, verb)


def _flag(flag: Flag, verb: Verb) -> Iterator[str]:
    value = rf" \fI{_escaped(flag.metavar)}\fR" if flag.metavar else ""
    yield ".TP"
    yield ", ".join(map(_literal, flag.spellings)) + value
    yield _text(flag.help_of(verb.name))


def _statuses() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for status, meaning in STATUSES:
        yield from (".TP", _literal(str(status)), _text(meaning[0].upper() + meaning[1:] + "."))


def _text(words: str) -> str:
    """Return a paragraph. Text in backticks is literal."""
    return re.sub(r"`(.*?)`", r"\\fB\1\\fR", _escaped(words))


def _literal(words: str) -> str:
    return rf"\fB{_escaped(words)}\fR"


def _escaped(words: str) -> str:
    """Escape text so that roff prints it unchanged."""
    text = words.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq").replace("~", r"\(ti")
    return rf"\&{text}" if text.startswith(".") else text


def write(folder: Path) -> None:
    """Write all pages into a folder, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
