"""Renders tables, elements and repairs as nft scripts.

nft 1.0.6 and later load every script. They also load what `nft list` prints after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kproxy.model import Family
from kproxy.nft.elements import Elements, Value, Verdict, range_ends, unpack
from kproxy.nft.ruleset import Chain, MapUpdate, SetDeclaration, Skeleton


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


def _render_range(declaration: SetDeclaration, family: Family, key: bytes) -> str:
    first, last = (unpack(end, declaration.key, family) for end in range_ends(key))
    return " . ".join(a if a == b else f"{a}-{b}" for a, b in zip(first, last, strict=True))


def _declaration(declaration: SetDeclaration, elements: Iterable[str]) -> Iterator[str]:
    yield f"\t# {declaration.about}"
    yield f"\t{'map' if declaration.is_map else 'set'} {declaration.name} {{"
    for statement in declaration.spec:
        yield f"\t\t{statement}"
    members = list(elements)
    if members:
        yield "\t\telements = {"
        for member in members:
            yield f"\t\t\t{member},"
        yield "\t\t}"
    yield "\t}"


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
        members: Iterable[str] = declaration.constant or ()
        if declaration.constant is None:
            members = (
                render_element(declaration, skeleton.family, key, value)
                for key, value in sorted(elements.get(declaration.name, {}).items())
            )
        lines += [*_declaration(declaration, members), ""]
    for chain in skeleton.chains:
        lines += [*_chain(chain), ""]
    lines[-1] = "}"
    return "\n".join(lines) + "\n"


def render_replacement(skeleton: Skeleton, elements: Elements) -> str:
    """Return a script that creates the table, or replaces an existing one, in one transaction."""
    table = f"table {skeleton.family} {skeleton.table}"
    return f"add {table}\ndelete {table}\n{render_table(skeleton, elements)}"


def without_map_updates(skeleton: Skeleton) -> Skeleton:
    """Return the skeleton without updates of IPv6 maps, which libnftables before 1.1 cannot load.

    `netlink_rules` returns the omitted rules.
    """
    if skeleton.family is Family.IPV4:
        return skeleton
    return skeleton._replace(
        chains=tuple(
            chain._replace(rules=tuple(rule for rule in chain.rules if not isinstance(rule, MapUpdate)))
            for chain in skeleton.chains
        )
    )


def netlink_rules(skeleton: Skeleton, chains: Iterable[str]) -> Iterator[tuple[str, MapUpdate]]:
    """Return the rules of `chains` that `without_map_updates` omits: name of the chain, and rule."""
    if skeleton.family is Family.IPV6:
        names = set(chains)
        for chain in skeleton.chains:
            for rule in chain.rules:
                if chain.name in names and isinstance(rule, MapUpdate):
                    yield chain.name, rule


def render_repair(
    skeleton: Skeleton, sets: Iterable[str], contents: Iterable[str], chains: Iterable[str]
) -> str:
    """Return a script that declares `sets`, refills the constant sets `contents`, and rewrites `chains`.

    It is one transaction, so there is no moment at which a chain has no rules.
    """
    table, new_sets, new_chains = f"{skeleton.family} {skeleton.table}", set(sets), set(chains)
    lines = [f"add table {table}"]
    for declaration in skeleton.sets:
        if declaration.name in new_sets:
            kind, spec = "map" if declaration.is_map else "set", "; ".join(declaration.spec)
            lines.append(f"add {kind} {table} {declaration.name} {{ {spec}; }}")
        elif declaration.name in contents:
            lines.append(f"flush set {table} {declaration.name}")
        if declaration.constant and (declaration.name in new_sets or declaration.name in contents):
            lines.append(f"add element {table} {declaration.name} {{ {', '.join(declaration.constant)} }}")
    written = [chain for chain in skeleton.chains if chain.name in new_chains]
    for chain in written:
        lines.append(f"add chain {table} {chain.name}" + (f" {{ {chain.hook} }}" if chain.hook else ""))
        lines.append(f"flush chain {table} {chain.name}")
    for chain in written:
        lines += [f"add rule {table} {chain.name} {rule}" for rule in chain.rules]
    return "\n".join(lines) + "\n"


def render_removal(family: Family, table: str, sets: Iterable[str], chains: Iterable[str]) -> str:
    """Return a script that deletes chains and sets, to which nothing but each other refers."""
    qualified, names = f"{family} {table}", sorted(chains)
    lines = [f"flush chain {qualified} {name}" for name in names]
    lines += [f"delete set {qualified} {name}" for name in sorted(sets)]
    lines += [f"delete chain {qualified} {name}" for name in names]
    return "\n".join(lines) + "\n"
