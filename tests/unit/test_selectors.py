"""Label selectors: the objects that each form selects, and invalid selectors."""

from __future__ import annotations

import pytest

from kproxy.problems import UsageError
from kproxy.show.selectors import parse_selector

LABELS = {
    "web": {"app": "web", "tier": "front", "rev": "12"},
    "api": {"app": "api", "tier": "back", "rev": "7"},
    "db": {"app": "db", "example.com/kept": "", "rev": "x"},
    "bare": {},
}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("", "web api db bare"),
        ("  ", "web api db bare"),
        ("app=web", "web"),
        ("app==web", "web"),
        (" app = web ", "web"),
        ("app!=web", "api db bare"),
        ("app in (web,api)", "web api"),
        ("app in ( web , api )", "web api"),
        ("app in(db)", "db"),
        ("app notin (web,api)", "db bare"),
        ("app", "web api db"),
        ("!app", "bare"),
        ("! tier", "db bare"),
        ("app,!tier", "db"),
        ("app,tier!=back", "web db"),
        ("tier in (front,back),rev=7", "api"),
        ("example.com/kept", "db"),
        ("example.com/kept=", "db"),
        ("example.com/kept in ()", "db"),
        ("tier in (,front)", "web"),
        ("rev>7", "web"),
        ("rev < 12", "api"),
        ("app>1", ""),
        ("in", ""),
        ("notin notin (a)", "web api db bare"),
    ],
)
def test_selected_objects(selector: str, names: str) -> None:
    parsed = parse_selector(selector)
    assert [name for name, labels in LABELS.items() if parsed.matches(labels)] == names.split()


FORMS = "KEY, !KEY, KEY=VALUE, KEY!=VALUE, KEY in (VALUE, ...) or KEY notin (VALUE, ...)"


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("app=web,", f"'' is not {FORMS}"),
        (",", f"'' is not {FORMS}"),
        ("app web", f"'app web' is not {FORMS}"),
        ("app=a=b", f"'app=a=b' is not {FORMS}"),
        ("app=!a", f"'app=!a' is not {FORMS}"),
        ("app in", f"'app in' is not {FORMS}"),
        ("app in web", f"'app in web' is not {FORMS}"),
        ("app in (web", f"'app in (web' is not {FORMS}"),
        ("app in (a)(b)", f"'app in (a)(b)' is not {FORMS}"),
        ("appin (web)", f"'appin (web)' is not {FORMS}"),
        ("a=b c", f"'a=b c' is not {FORMS}"),
        ("=web", f"'=web' is not {FORMS}"),
        ("!", f"'!' is not {FORMS}"),
        ("!a=b", f"'!a=b' is not {FORMS}"),
        ("-app", "'-app' is not a valid label key"),
        ("a/b/c", "'a/b/c' is not a valid label key"),
        ("A.com/b", "'A.com/b' is not a valid label key"),
        ("/b", "'/b' is not a valid label key"),
        (f"{'a' * 64}", f"'{'a' * 64}' is not a valid label key"),
        ("app=-web", "'-web' is not a valid label value"),
        ("app in (web,a b)", "'a b' is not a valid label value"),
        (f"app={'a' * 64}", f"'{'a' * 64}' is not a valid label value"),
        ("app>x", "'x' is not a number"),
        ("app>", "'' is not a number"),
    ],
)
def test_invalid_selectors(selector: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_selector(selector)
    assert str(caught.value) == f"--selector: {message}."
