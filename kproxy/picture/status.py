"""The status page: what a running kproxy serves and what is wrong, as one HTML page.

The page has no script and refers to nothing outside. Its size is limited: each section has a number of bytes,
and shows as many rows as fit, problems first. The last line of a section says how many rows it leaves out. So
the page has the same size with ten thousand Services as with a hundred.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import groupby, islice
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from kproxy.explain.answer import BECAUSE
from kproxy.model import Event, NamespacedName, ServicePortName
from kproxy.picture.html import element, row, text, within
from kproxy.picture.services import EndpointView, ListView, PortView, Services, ServiceView
from kproxy.show.snapshot import Failure, Snapshot
from kproxy.show.tables import duration
from kproxy.table.simulator import Reason

BYTES = 48_000
"""The maximum size of the page."""
SECTION_BYTES = 6_000
"""The maximum size of the rows of a section other than Services."""
HEADING_BYTES = 1_000
"""More than the headings and sentences of a section take."""
ROW_BYTES = 4_000
"""The maximum size of the row of a Service. A larger one is replaced by numbers."""
FINDINGS = 3
"""The maximum number of findings of a cause to show."""
ENDPOINTS = 10
"""The maximum number of endpoints of a list to show."""
NAME = 80
"""The maximum number of characters of a name."""

STYLE = """
:root{color-scheme:light dark;--ink:#111;--paper:#fff;--soft:#555;--line:#bbb;--bad:#a40000;--shade:#f2f2f2}
@media(prefers-color-scheme:dark){
:root{--ink:#e6e6e6;--paper:#14161a;--soft:#a5a5a5;--line:#4a4d55;--bad:#ff9d94;--shade:#22252b}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:76em;margin:auto;
padding:1em;overflow-wrap:anywhere}
h1{font-size:1.5em;margin:0}h2{font-size:1.15em;margin:1.6em 0 .4em}p{margin:.3em 0}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:.35em .7em .35em 0;border-bottom:1px solid var(--line)}
th,small,.soft{color:var(--soft);font-weight:normal}small{font-size:.87em}
ul{list-style:none;margin:0;padding:0}code{font:.87em ui-monospace,monospace}
.bad{color:var(--bad);font-weight:bold}.unused{color:var(--soft);font-style:italic}.id{white-space:nowrap}
.ok,.alert{padding:.5em .8em;background:var(--shade);border-left:5px solid var(--line)}
.alert{border-color:var(--bad)}
@media(max-width:45em){th{display:none}td{display:block;border:0;padding:.1em 0}
tr{display:block;padding:.5em 0;border-bottom:1px solid var(--line)}}
"""


class Finding(NamedTuple):
    """A finding of `kproxy doctor`."""

    id: str
    sureness: str
    subject: str
    what: str
    action: str


class Findings(NamedTuple):
    """What `kproxy doctor` said last."""

    rows: tuple[Finding, ...] = ()
    unseen: int = 0
    """The number of causes for which it could not look."""
    checked: int = 0
    at: float | None = None
    """When it looked (Unix epoch); None if it has not yet."""
    failure: str = ""
    """Why it could not look at all."""


Refused: TypeAlias = Mapping[tuple[ServicePortName, Reason], int]
"""The number of refused connections."""


class Now(NamedTuple):
    """When the page is made, and by what."""

    seconds: float
    """Unix epoch."""
    text: str
    version: str


def status_page(
    snapshot: Snapshot, findings: Findings, now: Now, refused: Refused = MappingProxyType({})
) -> bytes:
    """Return the page, at most `BYTES` long."""
    page = _Page(snapshot, findings, now, refused)
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{text(page.title, NAME)}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{STYLE}</style><body>",
        page.head(),
        *page.sections(),
    ]
    used = sum(len(part.encode()) for part in parts)
    return "".join((*parts, page.services(BYTES - used - HEADING_BYTES))).encode()


class _Page(NamedTuple):
    """Makes the sections of a page."""

    snapshot: Snapshot
    findings: Findings
    now: Now
    refused: Refused

    @property
    def title(self) -> str:
        """The title of the page."""
        name = self.snapshot.node.name
        return f"kproxy on {name}" if name else "kproxy"

    def head(self) -> str:
        """Return the title, and whether kproxy is healthy."""
        counts = f"{len(self.snapshot.inventory.services)} Services, {len(self.snapshot.frontends)} frontends"
        unhealthy = [*self.snapshot.unhealthy, *self.snapshot.address_failures]
        reasons = islice((text(each) for each in unhealthy), 3)
        state = element("p", *("Not healthy: ", "; ".join(reasons)), kind="bad alert")
        version, when = text(self.now.version), text(self.now.text)
        return "".join((
            element("h1", text(self.title, NAME)),
            element("p", f"version {version}, {counts}, as of {when}", kind="soft"),
            state if unhealthy else element("p", "Healthy: the tables are up to date.", kind="ok"),
        ))  # fmt: skip

    def sections(self) -> Iterator[str]:
        """Return the sections but that of the Services."""
        shown = list(_findings(self.findings.rows))
        found = Rows(shown, len(shown))
        about = self._about_findings()
        yield section("Findings of the doctor", about, ("Id", "Object", "What", "To do"), found)
        problems = [*map(_failure, self.snapshot.last_errors), *map(str, self.snapshot.problems)]
        if problems:
            about = "What cannot be used of the input, and what the kernel refused."
            yield section("Problems", about, ("Problem",), Rows(map(_problem, problems), len(problems)))
        refused = sorted(self.refused.items(), key=lambda each: -each[1])
        about = "Since kproxy started." if refused else "None since kproxy started."
        titles = ("Connections", "Service", "Because")
        yield section("Refused connections", about, titles, Rows(map(_refused, refused), len(refused)))
        events = sorted(self._events(), key=lambda each: each[1].last, reverse=True)
        about = "The last ones first." if events else "None in the past hour."
        rows = (self._event(*each) for each in events)
        yield section("Events", about, ("Age", "Service", "Reason", "Message"), Rows(rows, len(events)))

    def _about_findings(self) -> str:
        found = self.findings
        if found.failure:
            return f"kproxy doctor could not look: {text(found.failure)}"
        if found.at is None:
            return "kproxy doctor is looking. Load the page again in some seconds."
        looked = f"It looked for {found.checked} causes {self._age(found.at)} ago"
        unseen = f", and could not see the facts of {found.unseen} others" if found.unseen else ""
        return f"{looked}{unseen}. {'' if found.rows else 'It found nothing.'}"

    def _age(self, moment: float) -> str:
        return duration(max(0, int(self.now.seconds - moment)))

    def _events(self) -> Iterator[tuple[NamespacedName, Event]]:
        for name, events in self.snapshot.events.items():
            yield from ((name, event) for event in events)

    def _event(self, name: NamespacedName, event: Event) -> str:
        age = self._age(event.last)
        times = f" (x{event.count})" if event.count > 1 else ""
        kind = "bad" if event.is_warning else ""
        reason = element("span", text(event.reason, NAME), kind=kind)
        return row((f"{age}{times}", text(name, NAME), reason, text(event.message)))

    # --- the Services ---

    def services(self, budget: int) -> str:
        """Return the section of the Services, those with problems first, within a number of bytes."""
        services, views = self.snapshot.inventory.owners, Services(self.snapshot)
        failing = {name for name, service in services.items() if views.is_empty(service)}
        warned = self._named_in_problems()
        order = sorted(services, key=lambda name: (name not in failing, name not in warned, name))
        rows = (_service(views.view(services[name])) for name in order)
        about = f"{len(failing)} of {len(order)} refuse or drop connections because they have no endpoint."
        titles = ("Service", "Addresses and ports", "Endpoints, with their share of new connections")
        return section("Services", about, titles, Rows(rows, len(order), budget))

    def _named_in_problems(self) -> Set[NamespacedName]:
        events = self.snapshot.events.items()
        warned = {name for name, found in events if any(event.is_warning for event in found)}
        return warned | self.snapshot.inventory.held.keys()


class Rows(NamedTuple):
    """The rows of a table, of which as many are shown as fit."""

    rows: Iterable[str]
    total: int
    budget: int = SECTION_BYTES
    """Bytes."""


def section(title: str, about: str, titles: Sequence[str], rows: Rows) -> str:
    """Return a heading, a sentence, and a table. `about` is HTML."""
    shown = list(within(rows.rows, rows.budget))
    left_out = rows.total - len(shown)
    head = "".join(f"<th>{text(each)}" for each in titles)
    more = f"and {left_out} more, which kproxy get, describe and doctor show"
    return "".join((
        element("h2", text(title)),
        element("p", about, kind="soft"),
        element("table", "<tr>", head, *shown) if shown else "",
        element("p", more, kind="soft") if left_out else "",
    ))  # fmt: skip


def _findings(found: Iterable[Finding]) -> Iterator[str]:
    """Return the first rows of each cause, so that a cause with many findings does not hide the others."""
    for _, group in groupby(found, lambda each: each.id):
        rows = list(group)
        more = len(rows) - FINDINGS
        for number, each in enumerate(rows[:FINDINGS], 1):
            yield _finding(
                each, f", and {more} more of this cause" if number == FINDINGS and more > 0 else ""
            )


def _finding(found: Finding, more: str) -> str:
    what = f"{text(found.what)} {element('small', f'({text(found.sureness)}{more})')}"
    return row((element("b", text(found.id), kind="id"), text(found.subject, NAME), what, text(found.action)))


def _refused(found: tuple[tuple[ServicePortName, Reason], int]) -> str:
    (owner, reason), count = found
    because = BECAUSE.get(reason, "no endpoint is ready")
    return row((element("b", str(count), kind="bad"), text(owner, NAME), text(because)))


def _failure(found: Failure) -> str:
    return ": ".join(part for part in (found.time, found.object, found.message) if part)


def _problem(problem: str) -> str:
    return row((text(problem, 400),))


# --- a Service ---


def _service(service: ServiceView) -> str:
    """Return the row of a Service: short if it would be long."""
    kind = "bad" if service.fails else ""
    name = element("b", text(service.name, NAME), kind=kind) + f" {text(service.type)}"
    policies = "".join(f"<br>{element('small', text(policy, NAME))}" for policy in service.policies)
    lists = [each for port in service.ports for each in port.lists]
    cells = name + policies, _list(map(_frontends, service.ports)), _list(map(_endpoints, lists))
    full = row(cells)
    if len(full.encode()) <= ROW_BYTES:
        return full
    ports, endpoints = len(service.ports), sum(len(each.endpoints) for each in lists)
    return row((name, f"{ports} ports", f"{endpoints} endpoints; too many for this page"))


def _list(items: Iterable[str]) -> str:
    return element("ul", *items)


def _frontends(port: PortView) -> str:
    shown = (
        f"<li>{element('code', text(each.address))} {element('small', text(each.kind))}"
        for each in port.frontends
    )
    return f"<li>{element('small', text(port.name, NAME))}" + "".join(shown)


def _endpoints(found: ListView) -> str:
    clients = f"<li>{element('small', text(found.clients))}" if found.clients else ""
    none = element("b", f"no endpoint: packets are {text(found.result)}", kind="bad")
    result = f"<li>{none}" if found.result else ""
    more = len(found.endpoints) - ENDPOINTS
    rest = f"<li>and {more} more" if more > 0 else ""
    ordered = sorted(found.endpoints, key=lambda each: bool(each.why))
    return clients + result + "".join(map(_endpoint, ordered[:ENDPOINTS])) + rest


def _endpoint(endpoint: EndpointView) -> str:
    share = text(endpoint.why) if endpoint.why else f"{float(endpoint.share):.1%}"
    start = '<li class="unused">' if endpoint.why else "<li>"
    address, place = element("code", text(endpoint.address)), element("small", text(endpoint.place, NAME))
    return f"{start}{share} {address} {place}"
