"""Makes click's options and arguments, with types and completion, from the tables in `settings/`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from kproxy.settings.verbs import Operand, Verb

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from kproxy.settings.flags import Flag
    from kproxy.settings.kubeproxy_flags import KubeProxyFlag


def argument(verb: Verb, operand: Operand) -> click.Argument:
    """Return the argument for the operands of a verb."""
    return click.Argument(
        ["operands"],
        metavar=operand.metavar,
        required=operand.required,
        nargs=-1 if operand.several else operand.words,
        type=_Operand(verb, operand),
    )


def option(flag: Flag, verb: Verb) -> click.Option:
    """Return the option for a flag of a verb."""
    names, help_ = [flag.field, *flag.spellings], flag.help_of(verb.name).replace("`", "").partition(". ")[0]
    if not flag.metavar:
        return click.Option(names, is_flag=True, help=help_)
    return click.Option(
        names,
        type=_Typed(flag, verb),
        multiple=flag.repeated,
        required=verb.name in flag.required_by.split(),
        metavar=flag.metavar,
        help=help_,
    )


def kube_proxy_option(flag: KubeProxyFlag) -> click.Option:
    """Return the option for a flag that only kube-proxy has."""
    if not flag.metavar:
        return click.Option([flag.param, flag.name], is_flag=True, hidden=True)
    return click.Option([flag.param, flag.name], type=_KubeProxyText(flag), hidden=True)


class _Typed(click.ParamType[Any, str]):
    """A click type that uses the parser of a flag."""

    name = "text"

    def __init__(self, flag: Flag, verb: Verb) -> None:
        self.flag = flag
        self.choices = flag.choices_of(verb.name)
        """The allowed values; () for any value."""
        self.parse = str if verb.name in flag.choices_of_verbs else flag.parse

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value, or raise click's error with the parser's message."""
        try:
            if self.choices and value not in self.choices:
                raise ValueError(f"{value!r} is not one of {', '.join(self.choices)}")
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return choices, suggestions, paths or namespaces."""
        from click.shell_completion import CompletionItem

        from kproxy.cli.suggestions import namespaces

        match self.flag.completes:
            case "file" | "dir" as path:
                return [CompletionItem(incomplete, type=path)]
            case "namespace":
                return _items(namespaces(ctx.params), incomplete)
            case _:
                return _items(self.choices or self.flag.suggestions, incomplete)


class _KubeProxyText(click.ParamType[str, str]):
    """A click type for a flag of kube-proxy. The value is checked, but stays text."""

    name = "text"

    def __init__(self, flag: KubeProxyFlag) -> None:
        self.flag = flag

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, or raise click's error with the flag's message."""
        try:
            self.flag.effect(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return value


class _Operand(click.ParamType[str, str]):
    """A click type for an operand."""

    name = "text"

    def __init__(self, verb: Verb, operand: Operand) -> None:
        self.verb = verb
        self.choices = operand.choices

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the value, or raise click's error if it is not one of the choices."""
        if self.choices and value not in self.choices:
            self.fail(f"{value!r} is not one of {', '.join(self.choices)}", param, ctx)
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        """Return the possible operands of the verb."""
        from kproxy.cli.suggestions import operands

        before = ctx.params.get("operands") or ()
        return _items(operands(self.verb.name, ctx.params, before, incomplete), incomplete)


def _items(words: Iterable[str], incomplete: str) -> list[CompletionItem[str]]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(word) for word in words if word.startswith(incomplete)]
