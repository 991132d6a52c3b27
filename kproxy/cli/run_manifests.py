"""The daemon of `kproxy run --manifests`: files, probes and a store, and the kernel."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
from functools import partial

from kproxy.cli import daemon_options, options, uplink_options
from kproxy.daemon.daemon import Daemon
from kproxy.daemon.loop import Periods
from kproxy.daemon.report import Reporter
from kproxy.daemon.uplink import UplinkAddresses
from kproxy.kernel.host import HostAddresses
from kproxy.kernel.netlink import Netlink
from kproxy.kernel.rehearsal import Rehearsal
from kproxy.kernel.uplink import Uplink
from kproxy.standalone import channel
from kproxy.standalone.snapshot import Snapshot
from kproxy.standalone.source import Manifests
from kproxy.standalone.store import Store


def run_manifests(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    _log(arguments.verbose)
    gc.enable()
    store = Store(arguments.state_dir)
    with store.lock("run"), Rehearsal() as rehearsal, Netlink() as netlink:
        asyncio.run(_run(arguments, store, rehearsal, netlink))
    return 0


def _log(verbose: bool) -> None:
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


async def _run(arguments: argparse.Namespace, store: Store, rehearsal: Rehearsal, netlink: Netlink) -> None:
    host = HostAddresses()
    source = Manifests(
        arguments.manifests,
        store,
        options.ranges(arguments),
        lambda state: options.node(arguments, state.nodes, host),
        arguments.probe_exec,
    )
    reporter = Reporter(arguments.verbose)
    uplink = Uplink(arguments.load_balancer_interface)
    addresses = UplinkAddresses(uplink, source, uplink_options.nodes(arguments), partial(reporter.error, ""))
    daemon = Daemon(
        source,
        netlink,
        rehearsal,
        lambda: options.dataplane_options(arguments, source.state.nodes),
        reporter,
        Periods(arguments.sync_period, arguments.min_sync_period),
        daemon_options.exposure(arguments),
        addresses,
    )

    def changed() -> None:
        host.forget()
        addresses.forget()

    async with channel.serve(arguments.state_dir, partial(_snapshot, source, daemon)):
        await daemon.run(changed)


async def _snapshot(source: Manifests, daemon: Daemon) -> Snapshot:
    """What is known between two rounds."""
    async with daemon.loop.idle:
        return Snapshot(
            source.state,
            source.settled.services if source.settled else {},
            list(daemon.tables.intent.frontends()),
            source.problems() + daemon.tables.problems(),
            source.node(),
            readiness=dict(source.statuses()),
            last_errors=tuple(daemon.reporter.last_errors),
        )
