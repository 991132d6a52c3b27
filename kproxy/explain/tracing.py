"""A trace in words and as JSON: which rules one packet matched, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kproxy.explain.rules import OwnRules
from kproxy.model import Address, Protocol, format_socket
from kproxy.nft.tracing import Flow, Hit, Trace
from kproxy.show.tables import table
from kproxy.table.layout import TABLE, ChainName


def trace_text(trace: Trace, flow: Flow, rules: OwnRules, names: Mapping[Address, str]) -> str:
    """Return the trace in words. `names` has the names of pods."""
    rows = [(f"{hit.table} {hit.chain}", hit.verdict, _rule(hit, rules)) for hit in trace.hits if _tells(hit)]
    lines = [f"  {line}\n" for line in table(rows, gap=2).splitlines()]
    return "".join(lines) + ("\n" if lines else "") + verdict(trace, flow, names) + "\n"


def _tells(hit: Hit) -> bool:
    """Whether a hit says something: not the start of a trace, nor the end of a chain that drops nothing."""
    return not hit.table.startswith(f"{TABLE}-trace") and (hit.handle is not None or hit.verdict == "drop")


def _rule(hit: Hit, rules: OwnRules) -> str:
    if hit.handle is None:
        return "policy"
    own = rules.text(hit.chain, hit.handle) if hit.table == TABLE else ""
    return own or f"rule with handle {hit.handle}"


def verdict(trace: Trace, flow: Flow, names: Mapping[Address, str]) -> str:
    """Return what became of the packet, as a sentence."""
    if not trace.hits:
        return "No packet of this connection came to this node."
    last = trace.hits[-1]
    where = f"table {last.table}, chain {last.chain}"
    if last.verdict == "drop" and last.chain == ChainName.NO_ENDPOINTS and last.table == TABLE:
        has_port = all(hit.chain != ChainName.UNKNOWN_PORT for hit in trace.hits)
        why = "the frontend has no endpoint" if has_port else "the address does not have the port"
        return f"Refused: {why}."
    if last.verdict == "drop":
        return f"Dropped: {where}."
    return f"{_destination(last, flow, names)} {_way_out(last)} {_answer(trace, flow)}"


def _destination(last: Hit, flow: Flow, names: Mapping[Address, str]) -> str:
    address, port = last.destination
    name = f" ({names[address]})" if address in names else ""
    if last.destination == (flow.destination, flow.port):
        return f"Not translated: the destination stays {format_socket(address, port)}{name}."
    return f"Translated to {format_socket(address, port)}{name}."


def _way_out(last: Hit) -> str:
    return f"It left through {last.interface}." if last.interface else "It is for this node itself."


def _answer(trace: Trace, flow: Flow) -> str:
    match trace.answered:
        case True:
            return "A reply came."
        case False:
            return "No reply came."
        case None if flow.protocol is Protocol.TCP:
            return "The connection was refused: a TCP reset came."
        case None:
            return "The kernel no longer tracks it."


def trace_json(trace: Trace, flow: Flow, rules: OwnRules, names: Mapping[Address, str]) -> dict[str, Any]:
    """Return the trace as a JSON object. docs/explain.md describes it."""
    return {
        "hits": [_hit(hit, rules) for hit in trace.hits if _tells(hit)],
        "answered": trace.answered,
        "summary": verdict(trace, flow, names),
    }


def _hit(hit: Hit, rules: OwnRules) -> dict[str, Any]:
    return {
        "table": hit.table,
        "chain": hit.chain,
        "handle": hit.handle,
        "verdict": hit.verdict,
        "rule": _rule(hit, rules),
        "source": format_socket(*hit.source),
        "destination": format_socket(*hit.destination),
        "interface": hit.interface,
    }
