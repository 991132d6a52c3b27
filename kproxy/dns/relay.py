"""An upstream server's reply -> the reply to a client, by dnspython.

dnspython parses the reply, so what is malformed never reaches a client. It is imported with the first such
reply: it needs 9 MB, and a name server without queries for other names does not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kproxy.dns.core.respond import Outside
from kproxy.dns.core.wire import AA, DO, LIMIT_UDP, RA, RD, Code, Query, compose

if TYPE_CHECKING:
    from dns.message import Message


def relay(found: Outside, reply: bytes | None, over_tcp: bool) -> bytes:
    """Return the reply to a query, from that of an upstream server; SERVFAIL if there is no usable one."""
    query = found.query
    failure = compose(query, Code.SERVFAIL, flags=RA, limit=query.limit(over_tcp))
    if reply is None:
        return failure
    from dns.exception import DNSException

    try:
        return _relayed(found, reply, over_tcp)
    except DNSException:
        return failure


def _relayed(found: Outside, reply: bytes, over_tcp: bool) -> bytes:
    from dns.message import from_wire

    query, theirs = found.query, from_wire(reply)
    # The question with the letters of the client, and the aliases that lead to the name that was asked for.
    ours = from_wire(compose(query, Code.NOERROR, found.chain, limit=query.limit(True)))
    ours.answer += theirs.answer
    ours.authority += theirs.authority
    ours.additional += theirs.additional
    kept = theirs.flags & ~(AA | RD | 15) if not found.chain else 0
    ours.flags |= kept | RA
    ours.set_rcode(theirs.rcode())
    _set_edns(ours, query)
    return ours.to_wire(max_size=query.limit(over_tcp), prefer_truncation=True)


def _set_edns(message: Message, query: Query) -> None:
    if query.edns is None:
        message.use_edns(False)
    else:
        message.use_edns(0, query.edns[1] & DO, LIMIT_UDP)
