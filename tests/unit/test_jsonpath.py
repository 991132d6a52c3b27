r"""kubectl's JSONPath: the examples of its documentation, each form of a path, and each error.

The document and its examples are those of https://kubernetes.io/docs/reference/kubectl/jsonpath/.
"""

from __future__ import annotations

from typing import Any

import pytest

from kproxy.problems import KproxyError, UsageError
from kproxy.show import jsonpath
from kproxy.show.jsonpath import Expression, Template
from tests.cases import cases

DOCUMENT: dict[str, Any] = {
    "kind": "List",
    "items": [
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
            "status": {
                "capacity": {"cpu": "4"},
                "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}],
            },
        },
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.2"},
            "status": {
                "capacity": {"cpu": "8"},
                "addresses": [
                    {"type": "LegacyHostIP", "address": "127.0.0.2"},
                    {"type": "another", "address": "127.0.0.3"},
                ],
            },
        },
    ],
    "users": [
        {"name": "myself", "user": {}},
        {"name": "e2e", "user": {"username": "admin", "password": "secret"}},
    ],
}

DOCUMENTED = [
    ("kind is {.kind}", "kind is List"),
    ("{.kind}", "List"),
    ("{['kind']}", "List"),
    ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
    ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
    ("{['items'][*]['metadata']['name']}", "127.0.0.1 127.0.0.2"),
    ("{.users[0].name}", "myself"),
    ("{.items[*]['metadata.name', 'status.capacity']}", '127.0.0.1 127.0.0.2 {"cpu":"4"} {"cpu":"8"}'),
    ('{.users[?(@.name=="e2e")].user.password}', "secret"),
    (
        "{range .items[*]}[{.metadata.name}, {.status.capacity}] {end}",
        '[127.0.0.1, {"cpu":"4"}] [127.0.0.2, {"cpu":"8"}] ',
    ),
    (r"{range .items[*]}{.metadata.name}{'\t'}{end}", "127.0.0.1\t127.0.0.2\t"),
    (r'{range .items[*]}{.metadata.name}{"\t"}{.none}{"\n"}{end}', "127.0.0.1\t\n127.0.0.2\t\n"),
    (r"{.items[0].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1"),
    (r"{.items[0].metadata.labels['kubernetes\.io/hostname']}", "127.0.0.1"),
]


@pytest.mark.parametrize(("template", "text"), DOCUMENTED)
def test_the_examples_of_kubectls_documentation(template: str, text: str) -> None:
    assert Template(template).render(DOCUMENT) == text


@pytest.mark.parametrize("template", ["{@}", "{.}", "{$}"])
def test_the_whole_value(template: str) -> None:
    small = {"b": [1, True, None, "é"], "a": {}}
    assert Template(template).render(small) == '{"a":{},"b":[1,true,null,"é"]}'


VALUES = {
    "list": [10, 20, 30, 40],
    "empty": [],
    "map": {"b": 1, "a": {"c": [2]}},
    "text": "é",
    "ports": [
        {"name": "http", "port": 80, "open": True},
        {"name": "dns", "port": 53, "open": False, "target": "dns"},
        {"port": 9.5},
    ],
    "a.b": 1,
    "quote'd": "x",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("plain, } [ text", "plain, } [ text"),
        ("{.text}", "é"),
        ("{ .text }", "é"),
        ("{$.text}{@.text}", "éé"),
        ("{.ports[0].open} {.ports[2].port}", "true 9.5"),
        # keys
        (r"{.a\.b}", "1"),
        (r"{['a\.b']}", "1"),
        ('{["map"]["b"]}', "1"),
        ("{['map.a.c'][0]}", "2"),
        (r"{['quote\'d']}", "x"),
        ("{.map.*}", '1 {"c":[2]}'),
        ("{.list.*}", "10 20 30 40"),
        # missing values
        ("{.none}{.none.none}{.text.none}", ""),
        ("{.a&}{.a(}", ""),
        ("{.none[0]}{.none[*]}{.none[?(@.x==1)]}{.none.*}{..none}", ""),
        ("{.empty[*]}", ""),
        ("{range .none[*]}x{end}y", "y"),
        ("{range .empty[*]}x{range .y}z{end}{end}y", "y"),
        # indexes and slices
        ("{.list[0]}", "10"),
        ("{.list[-1]}", "40"),
        ("{.list[-4]}", "10"),
        ("{.list[1:3]}", "20 30"),
        ("{.list[:2]}", "10 20"),
        ("{.list[2:]}", "30 40"),
        ("{.list[-2:]}", "30 40"),
        ("{.list[:-1]}", "10 20 30"),
        ("{.list[:]}", "10 20 30 40"),
        ("{.list[::2]}", "10 30"),
        ("{.list[0:4:3]}", "10 40"),
        ("{.list[9:9]}", ""),
        ("{.empty[:]}", ""),
        ("{.list[0,2]}", "10 30"),
        ("{.list[ 0 , -1 ]}", "10 40"),
        ("{.list[0:2,3]}", "10 20 40"),
        # recursive descent
        ("{.map..c}", "[2]"),
        ("{.map..}", '{"a":{"c":[2]},"b":1} {"c":[2]} [2]'),
        ("{..c[0]}", "2"),
        ("{.map..['c']}", "[2]"),
        # filters
        ("{.ports[?(@.name)].port}", "80 53"),
        ("{.ports[?(@.port>=53)].name}", "http dns"),
        ("{.ports[?(@.port < 53)].port}", "9.5"),
        ("{.ports[?(@.port>9.5)].port}", "80 53"),
        ("{.ports[?(@.port<=53)].port}", "53 9.5"),
        ("{.ports[?( @.name != 'dns' )].port}", "80"),
        ('{.ports[?(@.name>"dns")].port}', "80"),
        ("{.ports[?(@.open==true)].name}", "http"),
        ("{.ports[?(@.open!=true)].name}", "dns"),
        ("{.ports[?(@.name==@.target)].port}", "53"),
        ("{.ports[?(@.name==')')].port}", ""),
        ("{.list[?(@==20)]}", "20"),
        ("{.list[?(@>+15)]}", "20 30 40"),
        ("{.list[?(@>-1)]}", "10 20 30 40"),
        # ranges
        ("{range .list[*]}<{@}>{end}", "<10><20><30><40>"),
        ("{range .ports[*]}{.name}:{range .open}{@}{end} {end}.", "http:true dns:false : ."),
        ("{range .list[:2]}{@} ", "10 20 "),
        ("{range  .list[:1] }x{ end }", "x"),
        # strings
        (r"""{"a\"b'"}{'\n\t\\'}{"\x41\u00e9\U0001F600"}""", "a\"b'\n\t\\Aé😀"),
        ("{'{}'}", "{}"),
        ("{5}{-1.5}{true}", "5-1.5true"),
    ],
)
def test_a_template(template: str, text: str) -> None:
    assert Template(template).render(VALUES) == text


@cases(
    r"""
    template                   place  message
    {                          2      expected '}'
    x{.a                       5      expected '}'
    {range .a}{.b              14     expected '}'
    {end}                      2      {end} without {range}
    {.a}{range .b}{end}{ end}  22     {end} without {range}
    {end .a}                   2      {end} without {range}
    {range .a}{end .b}         16     expected '}'
    {metadata.name}            2      unexpected 'metadata'; a field begins with a dot
    {&}                        2      unexpected '&'
    {...a}                     4      too many dots
    {.a[}                      5      expected an index, a slice or a quoted key
    {.a[]}                     5      expected an index, a slice or a quoted key
    {.a[b]}                    5      expected an index, a slice or a quoted key
    {.a[1}                     6      expected ']'
    {.a[1,}                    7      expected an index, a slice or a quoted key
    {.a[1:2:3:4]}              10     expected ']'
    {.a[::0]}                  8      the step of a slice must be at least 1
    {.a[1234567890]}           14     expected ']'
    {.a['b]}                   7      expected "'"
    {.a['b'}                   8      expected ']'
    {'abc}                     2      the closing quote is missing
    {'\q'}                     2      unknown escape \q
    {'\ud800'}                 2      \ud800 is not a character
    {'\U00110000'}             2      \U00110000 is not a character
    {1.2.3}                    7      '1.2.3' is not a number
    {.a[?(@.b=~'x')]}          10     unknown operator '=~', expected one of ==, !=, <, <=, >, >=
    {.a[?(@.b===1)]}           10     unknown operator '===', expected one of ==, !=, <, <=, >, >=
    {.a[?(@.b==1]}             13     unexpected ']'
    {.a[?(@.b==1)}             14     expected ']'
    {.a[?(@.b==1 && @.c==2)]}  14     unexpected '&'
    {.a[?(@.b                  10     expected ')'
    """,
    place=int,
)
def test_syntax_errors(template: str, place: int, message: str) -> None:
    is_invalid(template, place, message)


@pytest.mark.parametrize(
    ("template", "place"),
    [("{.a" + "[?(@.a" * 21 + ")]" * 21 + "}", 124), ("{range .a}" * 21 + "{end}" * 21, 211)],
)
def test_a_nested_template(template: str, place: int) -> None:
    is_invalid(template, place, "nested too deeply")


def is_invalid(template: str, place: int, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(template)
    assert str(caught.value) == f"JSONPath {template!r}, character {place}: {message}."


@cases(
    """
    template                  place  message
    {.list[4]}                8      index 4 is out of bounds: the list has 4 items
    {.list[-5]}               8      index -1 is out of bounds: the list has 4 items
    {.empty[0]}               9      index 0 is out of bounds: the list has 0 items
    {.list[1:5]}              8      index 4 is out of bounds: the list has 4 items
    {.list[5:]}               8      index 5 is out of bounds: the list has 4 items
    {.list[3:1]}              8      the slice begins at 3 and ends at 1
    {.map[0]}                 7      an object is not a list
    {.text[*]}                8      a string is not a list
    {.ports[*].port[*]}       17     a number is not a list
    {.map[?(@.b)]}            6      an object is not a list and cannot be filtered
    {.ports[?(@.name==1)]}    8      cannot compare a string with a number
    {.ports[?(@.open==1)]}    8      cannot compare a boolean with a number
    {.ports[?(@.open<true)]}  8      cannot compare a boolean by <
    {.ports[?(@==@)]}         8      cannot compare an object by ==
    {.ports[?(@.*==1)]}       8      a comparison needs one value on each side
    """,
    place=int,
)
def test_evaluation_errors(template: str, place: int, message: str) -> None:
    parsed = Template(template)
    with pytest.raises(KproxyError) as caught:
        parsed.render(VALUES)
    assert str(caught.value) == f"JSONPath {template!r}, character {place}: {message}."
    assert not isinstance(caught.value, UsageError)


def test_the_number_of_visited_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonpath, "LIMIT", 1000)
    deep: Any = 1
    for _ in range(200):
        deep = [deep, deep]  # as a tree, 2 ** 200 values
    for template in ("{..}", "{..*..*}", "{range .[*]}{..*}{end}"):
        with pytest.raises(KproxyError, match="visits more than 1000 values"):
            Template(template).render(deep)


@cases(
    r"""
    text                                               values
    .kind                                              List
    kind                                               List
    {.kind}                                            List
    {kind}                                             List
    items[0].metadata.name                             127.0.0.1
    .items[*].metadata.name                            127.0.0.1 127.0.0.2
    .items[*].metadata.labels.kubernetes\.io/hostname  127.0.0.1
    .none                                              -
    ..cpu                                              4 8
    """,
    values=str.split,
)
def test_an_expression(text: str, values: list[Any]) -> None:
    assert Expression(text).values(DOCUMENT) == values


@cases(
    """
    text      message
    -         JSONPath '' is not one path, such as .metadata.name.
    {         JSONPath '{' is not one path, such as .metadata.name.
    {.a}{.b}  JSONPath '{.a}{.b}' is not one path, such as .metadata.name.
    .a[       JSONPath '.a[', character 4: expected an index, a slice or a quoted key.
    {.a[x]}   JSONPath '{.a[x]}', character 5: expected an index, a slice or a quoted key.
    a b       JSONPath 'a b', character 3: unexpected 'b'; a field begins with a dot.
    """
)
def test_invalid_expressions(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Expression(text)
    assert str(caught.value) == message
