"""A query and the zone -> the reply, or what has to be asked elsewhere.

A name in the zone is answered from the zone. An alias (ExternalName) is followed: the records of its target
are added, from the zone, or from an upstream server. All other names are for an upstream server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kproxy.dns.core.names import HEADER, Name, compressed, pointers
from kproxy.dns.core.records import TTL, Type
from kproxy.dns.core.wire import AA, OPT, RA, Code, Query, compose, parse
from kproxy.dns.core.zone import CLASS_IN, TO_QUESTION, Answer, SharedAnswer, Zone, key, record

ANY = 255
TRANSFERS = frozenset({251, 252})
"""IXFR and AXFR. kproxy gives no copies of its zone over DNS."""
NOT_IN_A_ZONE = frozenset({0, OPT, 249, 250, 253, 254})
"""Types that are no records of a zone: TKEY, TSIG, and the mailbox types that are obsolete."""
LONGEST_CHAIN = 8
"""The maximum number of aliases that lead to one another. CoreDNS has the same maximum."""
MINIMAL_ANY = bytes((7,)) + b"RFC8482" + b"\0"
"""The data of a HINFO record: the answer to a question for all types, which is small (RFC 8482)."""


class Outside(NamedTuple):
    """A query whose answer has to come from an upstream server, at least in part."""

    query: Query
    chain: tuple[bytes, ...] = ()
    """The records of the aliases that lead to `target`."""
    target: Name = b""
    """The name to ask for instead of the one in the question; b"" without aliases."""


def respond(
    zone: Zone, data: bytes, over_tcp: bool = False, recursive: bool = False, turn: int = 0
) -> bytes | Outside | None:
    """Return the reply to a message, or what has to be asked; None if there must be no reply.

    `recursive`: the server asks upstream servers for this client. `turn` rotates the records of the answer.
    """
    query = parse(data)
    if not isinstance(query, Query):
        return query
    found = zone.answers.get(query.name + query.question[-4:])
    if found is not None:
        records = found.records
        if len(records) > 1:
            records = rotated(records, turn + data[0] * 256 + data[1])
        flags = AA | RA if recursive else AA
        return compose(query, Code.NOERROR, records, (), found.extras, flags, query.limit(over_tcp))
    return _Search(zone, query, query.limit(over_tcp), recursive).result()


def rotated(records: tuple[bytes, ...], turn: int) -> tuple[bytes, ...]:
    """Return the records, beginning with another one each turn."""
    first = turn % len(records)
    return records[first:] + records[:first]


class _Search:
    """Answers a question for which the zone has no answer that is ready."""

    def __init__(self, zone: Zone, query: Query, limit: int, recursive: bool) -> None:
        self._zone = zone
        self._query = query
        self._limit = limit
        self._recursion = RA if recursive else 0

    def result(self) -> bytes | Outside:
        """Return the reply, or what has to be asked."""
        query, zone = self._query, self._zone
        if query.question[-2:] != CLASS_IN.to_bytes(2, "big") or query.kind in TRANSFERS:
            return self._reply(Code.REFUSED, authoritative=False)
        if query.kind in NOT_IN_A_ZONE:
            return self._reply(Code.FORMERR, authoritative=False)
        alias = zone.answers.get(key(query.name, Type.CNAME))
        if alias is not None:
            return self._reply(records=alias.records) if query.kind == ANY else self._follow(alias)
        apex = zone.apex_of(query.name)
        if apex is None:
            return Outside(query)
        if query.name == apex and query.kind == Type.SOA:
            return self._reply(records=[record(TO_QUESTION, Type.SOA, TTL, zone.soa)])
        if query.kind == ANY and any(key(query.name, kind) in zone.answers for kind in Type):
            return self._reply(records=[record(TO_QUESTION, Type.HINFO, TTL, MINIMAL_ANY)])
        return self._negative(query.name, apex)

    def _follow(self, alias: Answer | SharedAnswer) -> bytes | Outside:
        """Add the records of the alias's target. A loop of aliases ends where it began."""
        query, zone, known = self._query, self._zone, pointers(self._query.name)
        chain, seen, owner = list[bytes](), {query.name}, TO_QUESTION
        while len(chain) < LONGEST_CHAIN:
            chain += (owner + text[len(TO_QUESTION) :] for text in alias.records)
            target = _target(alias)
            if target in seen:
                break
            seen.add(target)
            owner = compressed(target, known)
            if found := zone.answers.get(key(target, query.kind)):
                return self._reply(records=[*chain, *_owned(owner, found)])
            following = zone.answers.get(key(target, Type.CNAME))
            if following is None:
                apex = zone.apex_of(target)
                if apex is None:
                    return Outside(query, tuple(chain), target)
                return self._negative(target, apex, chain)
            alias = following
        return self._reply(records=chain)

    def _negative(self, name: Name, apex: Name, chain: Sequence[bytes] = ()) -> bytes:
        """Say that there are no such records, or that there is no such name."""
        code = Code.NOERROR if name in self._zone.nodes else Code.NXDOMAIN
        if self._query.name.endswith(apex):
            owner = (0xC000 | HEADER + len(self._query.name) - len(apex)).to_bytes(2, "big")
        else:
            owner = apex
        return self._reply(code, chain, [record(owner, Type.SOA, TTL, self._zone.soa)])

    def _reply(
        self,
        code: Code = Code.NOERROR,
        records: Sequence[bytes] = (),
        authority: Sequence[bytes] = (),
        authoritative: bool = True,
    ) -> bytes:
        flags = self._recursion | (AA if authoritative else 0)
        return compose(self._query, code, records, authority, (), flags, self._limit)


def _target(alias: Answer | SharedAnswer) -> Name:
    return alias.records[0][len(TO_QUESTION) + 10 :]


def _owned(owner: bytes, found: Answer | SharedAnswer) -> Iterator[bytes]:
    """Yield the records of another name."""
    return (owner + text[len(TO_QUESTION) :] for text in found.records)
