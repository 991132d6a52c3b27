"""What a verb accepts on the command line, from the tables in `settings/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from kproxy.settings.verbs import Verb

if TYPE_CHECKING:
    from kproxy.settings.flags import Flag
    from kproxy.settings.kubeproxy_flags import KubeProxyFlag


class Option(NamedTuple):
    """A flag that the command line may have: one of kproxy or of kube-proxy, HELP or VERSION."""

    names: tuple[str, ...]
    """With their dashes, short ones first."""
    field: str
    """The key of its value in `Call.flags`."""
    convert: Callable[[str], Any] | None = None
    """Returns the value of a text, or raises ValueError. None: a switch."""
    repeated: bool = False
    required: bool = False


HELP = Option(("-h", "--help"), "help")
VERSION = Option(("--version",), "version")
"""Like HELP, it has the name of the verb that does the same."""
UNKNOWN = Option((), "")


def by_name(options: Iterable[Option]) -> dict[str, Option]:
    """Return options by each of their names."""
    return {name: option for option in options for name in option.names}


OF_PROGRAM: Mapping[str, Option] = by_name((VERSION, HELP))
"""What kproxy accepts before the verb."""


def options_of(verb: Verb) -> dict[str, Option]:
    """Return what a verb accepts, by name."""
    return by_name(_options(verb))


def _options(verb: Verb) -> Iterator[Option]:
    if verb.takes_flags:
        from kproxy.settings.flags import flags_of

        yield from (_option(flag, verb) for flag in flags_of(verb.name))
    if verb.replaces_kube_proxy:
        from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS

        yield from map(_kube_proxy_option, KUBE_PROXY_FLAGS)
        yield VERSION
    yield HELP


def _option(flag: Flag, verb: Verb) -> Option:
    convert = partial(_convert, flag) if flag.metavar else None
    required = verb.name in flag.required_by.split()
    return Option(flag.spellings, flag.field, convert, flag.repeated, required)


def _convert(flag: Flag, text: str) -> Any:
    """Return the value of a flag. Raises ValueError."""
    if flag.choices and text not in flag.choices:
        raise ValueError(f"{text!r} is not one of {', '.join(flag.choices)}")
    return flag.parse(text)


def _kube_proxy_option(flag: KubeProxyFlag) -> Option:
    return Option((flag.name,), flag.param, partial(_check, flag) if flag.metavar else None)


def _check(flag: KubeProxyFlag, text: str) -> str:
    """Return the text of a flag of kube-proxy, which has an effect only later. Raises ValueError."""
    flag.effect(text)
    return text
