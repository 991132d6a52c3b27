"""The tables of verbs and flags: complete, and at one with the settings and with click's commands."""

from __future__ import annotations

from collections import Counter

import click
import pytest

from kproxy.cli.parser import program
from kproxy.settings.flags import FLAGS, Flag, Group, flags_of
from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS
from kproxy.settings.settings import Settings
from kproxy.settings.verbs import VERBS
from kproxy.show.environment import FORMATS

LITERAL_DEFAULTS = [flag for flag in FLAGS if flag.default.startswith("`")]


def test_every_field_of_the_settings_has_one_flag() -> None:
    assert Counter(flag.field for flag in FLAGS) == Counter({*Settings.__struct_fields__} - {"origins"})


@pytest.mark.parametrize("flag", LITERAL_DEFAULTS, ids=lambda flag: flag.field)
def test_a_default_is_that_of_the_settings(flag: Flag) -> None:
    _, text, _ = flag.default.split("`", 2)
    assert flag.parse(text) == getattr(Settings(node_name="n1"), flag.field)


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.field)
def test_a_flag_names_verbs_that_take_flags(flag: Flag) -> None:
    verbs = flag.verbs.split()
    assert {verb for verb, found in VERBS.items() if found.takes_flags}.issuperset(verbs)
    assert set(flag.required_by.split()) <= set(verbs)
    assert flag.group in Group
    assert set(flag.choices) <= set(map(str, map(flag.parse, flag.choices)))


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_each_flag_once(verb: str) -> None:
    spellings = Counter(spelling for flag in flags_of(verb) for spelling in flag.spellings)
    assert bool(spellings) == VERBS[verb].takes_flags
    assert set(spellings.values()) <= {1}
    assert not {"-h", "--help"} & spellings.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_clicks_options_are_those_of_the_table(verb: str) -> None:
    group = program()
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    options = {name for param in command.params if isinstance(param, click.Option) for name in param.opts}
    own = {"-h", "--help"}.union(*(flag.spellings for flag in flags_of(verb)))
    kube_proxys = {"--version", *(flag.name for flag in KUBE_PROXY_FLAGS)} if verb == "run" else set()
    assert options == own | kube_proxys
    assert not own & kube_proxys


def test_the_formats_of_env_are_those_of_its_flag() -> None:
    (flag,) = (flag for flag in FLAGS if flag.field == "format")
    assert flag.choices == tuple(FORMATS)
