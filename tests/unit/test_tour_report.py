"""The report of `make tour`: what counts as the expected output, and the page."""

from __future__ import annotations

import pytest

from tour.expected import answers, missing
from tour.page import page
from tour.script import Section, Step
from tour.walk import Result

TABLE = """NAME    TYPE        CLUSTER-IP     PORT(S)
kubia   ClusterIP   10.66.89.236   80/TCP,90/TCP
web     ClusterIP   None           80/TCP
"""


@pytest.mark.parametrize(
    ("expected", "absent"),
    [
        ("", []),
        ("kubia ClusterIP 10.66.* 80/TCP,90/TCP", []),
        ("NAME **\nweb  ClusterIP  None  80/TCP", []),
        ("web ** 80/TCP\nkubia ** 90/TCP", ["kubia ** 90/TCP"]),
        ("kubia ClusterIP * 80/TCP", ["kubia ClusterIP * 80/TCP"]),
        ("kubia ClusterIP 10.66.*", ["kubia ClusterIP 10.66.*"]),
        ("kubia ClusterIP 10x66.* 80/TCP,90/TCP", ["kubia ClusterIP 10x66.* 80/TCP,90/TCP"]),
        ("web ** 80/TCP\nweb ** 80/TCP", ["web ** 80/TCP"]),
    ],
)
def test_the_expected_lines_are_in_the_output_in_their_order(expected: str, absent: list[str]) -> None:
    assert missing(expected, TABLE) == absent


def test_answers_are_counted() -> None:
    output = "     12 You've hit kubia-a on mux1\n      8 You've hit kubia-b\nYou've hit kubia-a\n"
    assert answers(output) == {"kubia-a": 13, "kubia-b": 8}
    assert answers("< HTTP/1.1 301 Moved\n< X-Pod: external-1\n") == {"external-1": 1}
    assert answers(TABLE) == {}


def result(output: str, command: str = "curl -s <web>:80", absent: tuple[str, ...] = ()) -> Result:
    step = Step("kubectl exec a -- curl <web>", command, "* <none>", "a", note="`a` & so")
    return Result(step, "a", command, "* <none>", output, absent, ("kubia-a", "kubia-b"))


def test_the_page_shows_both_sides() -> None:
    found = [result("2 You've hit kubia-a"), result("<nothing>", absent=("* <none>",))]
    text = page([(Section("A title", "About", ()), found)], "<svg>lab</svg>", "<svg/>", "")
    assert text.count("kubectl exec a -- curl &lt;web&gt;") == 2
    assert ("<nothing>" in text, "&lt;nothing&gt;" in text, "<code>a</code> &amp; so" in text) == (
        False,
        True,
        True,
    )
    assert "2 steps: 1 as expected, 1 differs." in text
    # The picture: the pod that answered, and the one that did not.
    assert text.count("<line") == 2
    assert ("2 answers" in text, ">none<" in text) == (True, True)


@pytest.mark.parametrize(
    ("command", "destination"),
    [
        ("curl -s kubia:80", "kubia:80"),
        ("curl -sS 10.66.0.1:81 2>&1", "10.66.0.1:81"),
        ("for i in $(seq 20); do curl -s 10.66.0.1; done | sort", "10.66.0.1"),
        ("curl -si --resolve a.example:80:192.0.2.1 http://a.example/", "http://a.example/"),
        ("nslookup kubia", ""),
    ],
)
def test_the_destination_of_a_command(command: str, destination: str) -> None:
    assert result("", command).destination == destination


def test_commands_are_shown_as_they_are_typed() -> None:
    assert result("", "cat /etc/resolv.conf").typed == "netns-lab exec a -- cat /etc/resolv.conf"
    assert result("", "echo 'a' | sort").typed == "netns-lab exec a -- sh -c 'echo '\\''a'\\'' | sort'"
