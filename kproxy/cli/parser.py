"""Parses the command line with click, from the tables of `settings/`.

A click command is made when its verb is looked up, so that parsing needs only the flags of one verb. The
modules of verbs are not imported here: parsing returns a `Call`, and `main` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from kproxy.cli.options import argument, kube_proxy_option, option
from kproxy.cli.output import write
from kproxy.problems import CommandLineError
from kproxy.settings.verbs import VERBS, Verb

PROGRAM = "kproxy"
SWITCHES = "kproxy.switches"
"""The key in a context's `meta` for switches with a value: field of Settings to bool."""
CLEANUP = "--cleanup"
"""kube-proxy's flag for what is a verb of kproxy."""
VERBOSITY = "--v"
"""klog's flag. Only its number distinguishes it from kproxy's switch `-v`."""
EXTRA_ARGUMENTS = r"Got unexpected extra (arguments?) \((.*)\)"
"""click's message about operands that a verb does not take."""


class Call(NamedTuple):
    """A parsed command line."""

    verb: Verb
    flags: Mapping[str, Any]
    """The values of the flags on the command line, by field of Settings."""
    operands: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """A line for each flag of kube-proxy that has no effect."""


def parse(argv: Sequence[str]) -> Call:
    """Parse a command line. Raises CommandLineError, or click's Exit after printing help."""
    try:
        with program().make_context(PROGRAM, list(argv)) as context:
            call = context.command.invoke(context)
            assert isinstance(call, Call)
            return call
    except click.UsageError as error:
        raise CommandLineError(sentence(error)) from None


def sentence(error: click.UsageError) -> str:
    """Return kproxy's message for an error of click."""
    from kproxy.problems import did_you_mean

    match error:
        case click.NoSuchOption():
            return f"Unknown flag {error.option_name}.{did_you_mean(error.option_name, _names(error))}"
        case click.exceptions.NoSuchCommand():
            return f"Unknown verb {error.command_name}.{did_you_mean(error.command_name, VERBS)}"
        case click.exceptions.NoArgsIsHelpError():
            return "Missing VERB."
        case click.MissingParameter(param=click.Option() as flag):
            return f"Missing flag {flag.opts[0]} {flag.metavar}."
        case click.MissingParameter(param=click.Argument() as operand):
            return f"Missing {operand.metavar}."
        case click.BadParameter(param=click.Option() as flag):
            return f"{flag.opts[-1]}: {error.message}."
        case click.BadParameter(param=click.Argument() as operand):
            return f"{operand.metavar}: {error.message}."
        case click.BadArgumentUsage():
            return "Wrong number of arguments."
        case click.BadOptionUsage() if "does not take" in error.message:
            return f"{error.option_name} does not take a value."
        case click.BadOptionUsage():
            return f"{error.option_name} needs a value."
        case _ if extra := re.fullmatch(EXTRA_ARGUMENTS, error.message):
            only_files = "-f" in _names(error) and "operands" not in _names(error)
            hint = " For more than one path, repeat -f, or name their folder." if only_files else ""
            return f"Unexpected {extra[1]}: {extra[2]}.{hint}"
        case _:
            return f"{error.format_message().rstrip('.')}."


def _names(error: click.UsageError) -> list[str]:
    """Return the names of the operands and flags of the command of an error."""
    return [name for param in error.ctx.command.params for name in param.opts] if error.ctx else []


def _help_option(verb: Verb | None) -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            from kproxy.cli.help import help_of

            write(help_of(verb) + "\n")
            ctx.exit()

    names = ["-h", "--help"]
    return click.Option(
        names, is_flag=True, expose_value=False, is_eager=True, callback=show, help="Show this help."
    )


class _Command(click.Command):
    """A verb that accepts Go's spellings of flags: `--masquerade-all=false`, `-n=shop`, `-v=2`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse switches with a value, and pass the other words to click."""
        names = {name: param for param in self.params for name in param.opts if _is_switch(param)}
        if any(VERBOSITY in param.opts for param in self.params):
            args = list(_with_verbosity(args))
        rest: list[str] = []
        for place, word in enumerate(args):
            name, equals, value = word.partition("=")
            if word == "--":
                rest += args[place:]
                break
            if equals and name in names:
                ctx.meta.setdefault(SWITCHES, {})[names[name].name] = _switch(name, value, ctx)
            else:
                rest.append(word)
        return super().parse_args(ctx, rest)

    def make_parser(self, ctx: click.Context) -> click.parser._OptionParser:
        """Let click find `-f` in one step, and split `-f=PATH`.

        Otherwise it first looks for a long flag of this name, and prepares the error that there is none.
        """
        parser = super().make_parser(ctx)
        parser._long_opt.update(parser._short_opt)
        return parser


def _with_verbosity(words: Sequence[str]) -> Iterator[str]:
    """Replace `-v=2`, `-v2` and `-v 2` by klog's `--v=2`. `-v` alone stays."""
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "-v" and rest and rest[0].isdigit():
            yield f"{VERBOSITY}={rest.pop(0)}"
        elif word == "--":
            yield from (word, *rest)
            return
        else:
            yield re.sub(r"^-v=?(\d+)$", rf"{VERBOSITY}=\1", word)


def _is_switch(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and param.is_flag and param.expose_value


def _switch(name: str, value: str, ctx: click.Context) -> bool:
    from kproxy.settings.text import switch

    try:
        return switch(value)
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}", ctx) from None


class _Program(click.Group):
    """kproxy itself. The command of a verb is made when it is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a verb."""
        verb = VERBS.get(cmd_name)
        return _command(verb) if verb else None


def program() -> click.Group:
    """Return the click group of kproxy's verbs. Invoking it returns a Call."""
    params = [_version_option(), _help_option(None)]
    return _Program(PROGRAM, params=params, add_help_option=False)


def _version_option(hidden: bool = False) -> click.Option:
    return click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_version,
        hidden=hidden,
        help="Print the version.",
    )


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from kproxy.cli.version import run

        ctx.exit(run(()))


def _command(verb: Verb) -> click.Command:
    """Return the click command of a verb. Invoking it returns a Call."""

    @click.pass_context
    def call(context: click.Context, /, operands: str | tuple[str, ...] | None = None, **flags: Any) -> Call:
        typed = {
            name: value
            for name, value in flags.items()
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        typed |= context.meta.get(SWITCHES, {})
        words = (operands,) if isinstance(operands, str) else operands
        found = Call(verb, typed, words or ())
        return _in_place_of_kube_proxy(found) if verb.replaces_kube_proxy else found

    params: list[click.Parameter] = [argument(verb, verb.operand)] if verb.operand else []
    if verb.takes_flags:
        from kproxy.settings.flags import flags_of

        params += (option(flag, verb) for flag in flags_of(verb.name))
    if verb.replaces_kube_proxy:
        from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS

        params += [*map(kube_proxy_option, KUBE_PROXY_FLAGS), _version_option(hidden=True)]
    params.append(_help_option(verb))
    return _Command(verb.name, params=params, callback=call, add_help_option=False, short_help=verb.summary)


def _in_place_of_kube_proxy(call: Call) -> Call:
    """Replace kube-proxy's flags in a call by their effects."""
    from kproxy.settings.kubeproxy_flags import KUBE_PROXY_FLAGS, effects

    flags = dict(call.flags)
    found = [(flag, flags.pop(flag.param)) for flag in KUBE_PROXY_FLAGS if flag.param in flags]
    if (CLEANUP, True) in ((flag.name, value) for flag, value in found):
        return Call(VERBS["cleanup"], {name: flags[name] for name in ("state_dir",) if name in flags}, ())
    values, warnings = effects(found)
    return call._replace(flags=values | flags, warnings=tuple(warnings))
