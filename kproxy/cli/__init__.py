"""The command line: one module per verb, each with `add_parser` and a function that runs it."""

from __future__ import annotations

import argparse
import gc
import os
import sys

import kproxy
from kproxy.cli import cleanup, compile_, describe, env, get, run, sync
from kproxy.cli.options import settings_of
from kproxy.cli.parser import Parser
from kproxy.kernel.netlink.socket import NetlinkError
from kproxy.problems import KproxyError, UsageError
from kproxy.settings.settings import Settings

EPILOG = """exit status:
  0  all well
  1  something was left out, or could not be done
  2  wrong use
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `kproxy`, each verb with a `run` default: (settings, namespace) -> exit status."""
    parser = Parser(
        prog="kproxy",
        description="Kubernetes Services as an nftables dataplane, from manifests alone.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kproxy {kproxy.__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for verb in (sync, run, compile_, get, describe, env, cleanup):
        verb.add_parser(verbs)
    return parser


def settings_from(argv: list[str]) -> Settings:
    """The settings that a command line comes to."""
    return settings_of(build_parser().parse_args(argv))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    # A command makes many objects and no garbage: collecting costs a fifth of a large sync, half with YAML.
    gc.disable()
    try:
        status: int = arguments.run(settings_of(arguments), arguments)
        sys.stdout.flush()
    except KproxyError as error:
        print(f"kproxy: {error.full}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except NetlinkError as error:
        print(f"kproxy: netlink: {error.strerror}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `kproxy compile | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
