"""Renders tables and elements as nft scripts.

nft 1.0.6 and later load every script. They also load what `nft list` prints after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kproxy.model import Family
from kproxy.nft.elements import Elements, Value, Verdict, range_ends, unpack
from kproxy.nft.ruleset import Chain, SetDeclaration, Skeleton
from kproxy.nft.transaction import Transaction

ON_A_LINE = 8
"""How many elements of a constant set a line of a script has."""


def render_element(declaration: SetDeclaration, family: Family, key: bytes, value: Value) -> str:
    """Return an element as text: `10.96.0.10 . tcp . 80 comment "default/kubia" : goto lb-3`."""
    if declaration.interval_key:
        return _render_range(declaration, family, key)
    text = " . ".join(unpack(key, declaration.key, family))
    if isinstance(value, Verdict):
        comment = f' comment "{value.comment}"' if value.comment else ""
        return f"{text}{comment} : {value.text}"
    if value:
        return f"{text} : {' . '.join(unpack(value, declaration.value, family))}"
    return text


def render_changes(skeleton: Skeleton, *transactions: Transaction) -> Iterator[str]:
    """Yield a line for each element that transactions remove (`-`) or add (`+`), sorted by set and key."""
    for declaration in skeleton.written_sets:
        name = declaration.name
        lines = [
            (key, sign, f"{sign} {name} {render_element(declaration, skeleton.family, key, value)}")
            for transaction in transactions
            for sign, members in (
                ("-", transaction.remove.get(name, {})),
                ("+", transaction.add.get(name, {})),
            )
            for key, value in members.items()
        ]
        yield from (line for _, _, line in sorted(lines, key=lambda each: (each[0], each[1] == "+")))


def _render_range(declaration: SetDeclaration, family: Family, key: bytes) -> str:
    first, last = (unpack(end, declaration.key, family) for end in range_ends(key))
    return " . ".join(a if a == b else f"{a}-{b}" for a, b in zip(first, last, strict=True))


def _declaration(declaration: SetDeclaration, family: Family, elements: Iterable[str]) -> Iterator[str]:
    yield f"\t# {declaration.about}"
    yield f"\t{'map' if declaration.is_map else 'set'} {declaration.name} {{"
    for statement in declaration.spec(family):
        yield f"\t\t{statement}"
    members = list(elements)
    if members:
        yield "\t\telements = {"
        for member in members:
            yield f"\t\t\t{member},"
        yield "\t\t}"
    yield "\t}"


def _members(declaration: SetDeclaration, family: Family, elements: Mapping[bytes, Value]) -> Iterator[str]:
    if declaration.constant is None:
        for key, value in sorted(elements.items()):
            yield render_element(declaration, family, key, value)
    constant = [
        render_element(declaration, family, each, b"") if isinstance(each, bytes) else str(each)
        for each in declaration.constant or ()
    ]
    for first in range(0, len(constant), ON_A_LINE):
        yield ", ".join(constant[first : first + ON_A_LINE])


def _chain(chain: Chain) -> Iterator[str]:
    yield f"\t# {chain.about}"
    yield f"\tchain {chain.name} {{"
    if chain.hook:
        yield f"\t\t{chain.hook}"
    for rule in chain.rules:
        yield f"\t\t{rule}"
    yield "\t}"


def render_table(skeleton: Skeleton, elements: Mapping[str, Mapping[bytes, Value]]) -> str:
    """Return the complete table. The elements are inside the declarations, sorted by key."""
    lines = [f"table {skeleton.family} {skeleton.table} {{"]
    for declaration in skeleton.sets:
        members = _members(declaration, skeleton.family, elements.get(declaration.name, {}))
        lines += [*_declaration(declaration, skeleton.family, members), ""]
    for chain in skeleton.chains:
        lines += [*_chain(chain), ""]
    lines[-1] = "}"
    return "\n".join(lines) + "\n"


def render_replacement(skeleton: Skeleton, elements: Elements) -> str:
    """Return a script that creates the table, or replaces an existing one, in one transaction."""
    table = f"table {skeleton.family} {skeleton.table}"
    return f"add {table}\ndelete {table}\n{render_table(skeleton, elements)}"
