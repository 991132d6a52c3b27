"""Text of other parties in HAProxy's configuration: in quotes, or refused."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kproxy.gateway.core.quote import format_text, header_name, quoted, word


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=30))
def test_quoted_text_is_one_word_or_refused(text: str) -> None:
    try:
        found = quoted(text)
    except ValueError:
        assert not text or any(
            ord(each) < 32 or 127 <= ord(each) < 160 or each in "\u2028\u2029" for each in text
        )
        return
    assert shlex.split(found) == [text]  # HAProxy's single quotes are those of a shell
    assert len(found.splitlines()) <= 1


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "\0", "\x1b[1m", "a\tb", "\x85", "\u2028", "x" * 2049])
def test_text_that_cannot_be_in_a_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="character"):
        quoted(text)


@given(st.text(max_size=20))
def test_a_format_contains_no_sequence(text: str) -> None:
    assert format_text(text).replace("%%", "").count("%") == 0
    assert format_text(text).replace("%%", "%") == text


@given(st.text(alphabet="a_-.~A0(){}, '\"\n%\\$é", max_size=8))
def test_a_name_in_parentheses_has_no_special_character(text: str) -> None:
    for check in (word, header_name):
        try:
            found = check(text)
        except ValueError:
            continue
        assert found == text
        assert text
        assert not set(text) & set("(){}, '\"\n%\\$é")
