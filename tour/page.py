"""The report as one HTML page, without scripts and without other files. Pure."""

import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape

from tour import pictures
from tour.script import Section
from tour.walk import Result

WORDS = {"yes": "as expected", "no": "differs", "later": "not there yet"}
Walked = Sequence[tuple[Section, Sequence[Result]]]


def page(walked: Walked, lab: str, services: str, style: str) -> str:
    """Return the page. `lab` and `services` are pictures of the lab and of all Services, `style` is CSS."""
    results = [result for _, found in walked for result in found]
    number = {verdict: sum(result.verdict == verdict for result in results) for verdict in WORDS}
    counted = ", ".join(f"{count} {WORDS[verdict]}" for verdict, count in number.items() if count)
    links = "".join(f'<a href="#s{at}">{escape(section.title)}</a>' for at, (section, _) in enumerate(walked))
    body = "".join(_section(at, section, found) for at, (section, found) in enumerate(walked))
    picture = b64encode(services.encode()).decode()
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Services, with kproxy</title><style>{style}</style></head><body>
<h1>Services, with kproxy</h1>
<p>The transcripts of a chapter about Kubernetes Services: on the left what the book types, and what has to
come out; on the right what was typed and printed here, in network namespaces of one machine, with packets.
A * stands for any word.</p>
<p>{len(results)} steps: {counted}.</p>
<nav>{links}<a href="#all">All Services</a></nav>
<h2>The lab</h2>{lab}
{body}
<h2 id="all">All Services</h2>
<p>The picture that <code>kproxy graph</code> prints at the end of the tour.</p>
<img alt="All Services, with their endpoints" src="data:image/svg+xml;base64,{picture}">
</body></html>
"""


def _section(at: int, section: Section, results: Sequence[Result]) -> str:
    steps = "".join(map(_step, results))
    return f'<h2 id="s{at}">{escape(section.title)}</h2><p>{_prose(section.about)}</p>{steps}'


def _step(result: Result) -> str:
    step = result.step
    left = _side("the book" if step.book else "expected", step.book, result.expected)
    right = _side("here", result.typed, result.output or step.missing)
    below = f'<span class="verdict">{WORDS[result.verdict]}</span>'
    if step.note:
        below += f" &nbsp; {_prose(step.note)}"
    if result.missing and not step.missing:
        below += f"<pre>missing: {escape(chr(10).join(result.missing))}</pre>"
    if result.answers and result.destination:
        below += f"<div>{pictures.requests(result)}</div>"
    sides = f'<div class="sides">{left}{right}</div>'
    return f'<div class="step {result.verdict}">{sides}<div class="below">{below}</div></div>'


def _prose(text: str) -> str:
    """Return HTML of a sentence with `code` in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _side(heading: str, command: str, text: str) -> str:
    typed = f'<pre class="command">{escape(command)}</pre>' if command else ""
    return f'<div class="side"><h4>{heading}</h4>{typed}<pre>{escape(text)}</pre></div>'
