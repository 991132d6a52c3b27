"""Canonical paths, and which regular expressions are allowed."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kproxy.gateway.core.paths import canonical, canonical_regex
from tests.cases import cases


@cases(
    """
    path          wanted
    /             /
    /a/b-c.d_e~f  /a/b-c.d_e~f
    /%61          /a
    /a%2fb%2Fc    /a/b/c
    //a///b//     /a/b/
    /é b          /%C3%A9%20b
    /a:b;c=d@e!   /a%3Ab%3Bc%3Dd%40e%21
    /%252e%252e   /%252e%252e
    /..a/a../.a   /..a/a../.a
    """
)
def test_a_canonical_path(path: str, wanted: str) -> None:
    assert canonical(path) == wanted


@cases(
    """
    path
    /..
    /.
    /a/../b
    /a/./b
    /%2e%2E
    /a%2f..
    /a/..%2fb
    /a/..;b/c
    /a%5C..%5Cb
    /%
    /%4
    /%zz
    /%0a
    /\x7f
    """
)
def test_a_path_that_gets_status_400(path: str) -> None:
    with pytest.raises(ValueError, match="contains"):
        canonical(path)


@given(st.text(alphabet="/ab.%2fF;é\0 -", max_size=12))
def test_a_canonical_path_is_its_own(text: str) -> None:
    try:
        found = canonical(f"/{text}")
    except ValueError:
        return
    assert re.fullmatch(r"/(?:[A-Za-z0-9._~/-]|%[0-9A-F]{2})*", found)
    assert "//" not in found
    assert canonical(found) == found


@cases(
    r"""
    regex                    wanted
    /api(/|$)(.*)            /api(/|$)(.*)
    /v[0-9]{1,3}/\d+\.json$  /v[0-9]{1,3}/\d+\.json$
    /(?:ab)+                 /(?:ab)+
    /a:b                     /a(?:%3A)b
    /a\+b                    /a(?:%2B)b
    /[^/]+/x                 /[^/]+/x
    """
)
def test_a_regular_expression_for_canonical_paths(regex: str, wanted: str) -> None:
    assert canonical_regex(regex) == wanted


@pytest.mark.parametrize(
    "regex",
    [
        *("(", "a)", "[", "*", "a**", "/a{2,1}", "\\", "/(?P<n>a)", "/(?=a)", "/(?<!a)", r"/(a)\1", "/(?i)a"),
        *(
            "/(a+)+",
            "/(a|a)*",
            "/(?:a*b)*",
            "/((a|b)+c){2,}",
            "/(a{2,})*$",
            "/\n",
            "/[[:alpha:]]",
            "/a" * 300,
            r"\Qa\E",
            "/(?#c)",
            *(f"/[a{operation}b]" for operation in ("||", "--", "&&", "~~")),
            "/" + "(?:abcdefgh){999}" * 3,
            "/" + "([a-z][a-z]){0,999}" * 3,
        ),
    ],
)
def test_other_regular_expressions_are_refused(regex: str) -> None:
    with pytest.raises(ValueError, match=r"regular expression|repeats"):
        canonical_regex(regex)


@settings(max_examples=50)
@given(st.text(alphabet="ab(|)*+?{1,9}[]^$.\\d", max_size=16))
def test_an_allowed_regular_expression_takes_no_exponential_time(text: str) -> None:
    try:
        regex = re.compile(canonical_regex(text))
    except ValueError:
        return
    begun = time.process_time()
    regex.match("a" * 60 + "!")
    assert time.process_time() - begun < 5
