"""Brings HAProxy to a configuration: by commands if they suffice, else by a reload.

A driver has one caller at a time, so changes, reloads and audits never overlap. A reply that is missing or
unexpected leads to a reload, which needs nothing of the process before but its listening sockets.

If HAProxy refuses a configuration, or its files cannot be written, the configuration before stays in use, and
its backends still get new servers.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from kproxy.gateway.core.configuration import Configuration, fitted
from kproxy.gateway.core.files import digest
from kproxy.gateway.core.plan import Plan, Running, plan, started, with_servers_of
from kproxy.gateway.folder import Folders
from kproxy.gateway.process import AbsentError, Launcher, Process, RefusedError
from kproxy.problems import KproxyError

logger = logging.getLogger(__name__)
LOADED = "configuration.msgpack"
"""The file from which a later kproxy knows the configuration of the process."""


class Counts(NamedTuple):
    """What a driver has done."""

    reloads: int = 0
    """Starts in place of another process."""
    restarts: int = 0
    """Starts because the process had ended."""
    repairs: int = 0
    """Audits that found a difference."""
    commands: int = 0
    """Changes without a reload."""


class Driver:
    """Drives the process of one state directory. All methods block."""

    def __init__(self, folders: Folders, launcher: Launcher) -> None:
        self.counts = Counts()
        self.process: Process | None = None
        self.loaded: Configuration | None = None
        """What the process has, with its own text; the last one that it took if it has ended."""
        self._folders, self._launcher = folders, launcher
        self._running = Running()
        self._refused: dict[str, KproxyError] = {}
        """Why the last refused configuration was refused, by its digest."""

    def apply(self, desired: Configuration) -> None:
        """Bring HAProxy to a configuration. Raises KproxyError if it keeps another one."""
        if self.process is None:
            self._adopt()
        if not (self.process and self.process.running):
            self._restart(desired)
        elif not self._change(desired):
            logger.info("HAProxy needs another file, or did not take a change: reloading it")
            self._reload(desired)

    def end(self) -> None:
        """Let `apply` and `audit`, in another thread, not wait for a start or a check of HAProxy any more."""
        self._launcher.program.ended.set()

    def audit(self) -> None:
        """Read back what HAProxy has, and repair what differs. Raises KproxyError if that fails."""
        if not (self.loaded and self.process):
            return
        try:
            runtime = self.process.runtime
            self._running = runtime.read(self.loaded)
            found = plan(self._running, self.loaded)
            if found and found.empty:
                return
            logger.warning("HAProxy is not as configured: another program changed it. Repairing it.")
            self.counts = self.counts._replace(repairs=self.counts.repairs + 1)
            if found:
                self._carry_out(found, self.loaded)
                return
        except KproxyError as error:
            logger.warning("%s Reloading HAProxy.", error)
        self._reload(self.loaded)

    def _adopt(self) -> None:
        """Find the process that an earlier kproxy started, and what it has."""
        self._folders.create()
        for folder in self._folders.newest_first():
            self.loaded = self.loaded or _loaded(folder)
            if found := self._launcher.find(folder):
                self.process, self.loaded = found, _loaded(folder)
                self._know()
                return

    def _know(self) -> None:
        """Read what the process has. If it cannot be known, the process will be reloaded."""
        assert self.process
        try:
            runtime = self.process.runtime
            if self.loaded and runtime.information().get("description") == digest(self.loaded):
                self._running = runtime.read(self.loaded)
                logger.info("HAProxy runs: process %d", self.process.pid)
                return
        except KproxyError as error:
            logger.warning("%s", error)
        self.loaded = None

    def _change(self, desired: Configuration) -> bool:
        """Make a change by commands. Returns whether that was possible."""
        assert self.process
        if self.loaded is None or (fits := fitted(desired, self.loaded)) is None:
            return False
        if (found := plan(self._known(fits), fits)) is None:
            return False
        try:
            if not found.empty:
                self._carry_out(found, fits)
        except KproxyError as error:
            logger.warning("%s", error)
            return False
        self.loaded = fits
        return True

    def _known(self, fits: Configuration) -> Running:
        """Return what HAProxy has, without the certificates whose chain or key changed."""
        before = self.loaded.certificates if self.loaded else {}
        changed = {name for name, pem in fits.certificates.items() if before.get(name, pem) != pem}
        kept = self._running.certificates
        return replace(
            self._running, certificates={name: "" if name in changed else kept[name] for name in kept}
        )

    def _carry_out(self, found: Plan, desired: Configuration) -> None:
        assert self.process
        self.process.runtime.carry_out(found, desired)
        self._running = found.result
        self.counts = self.counts._replace(commands=self.counts.commands + 1)

    def _reload(self, desired: Configuration) -> None:
        try:
            self._start(desired)
        except KproxyError:
            if self.loaded and desired is not self.loaded:
                self._change(with_servers_of(self.loaded, desired))
            raise
        self.counts = self.counts._replace(reloads=self.counts.reloads + 1)

    def _restart(self, desired: Configuration) -> None:
        """Start a process where none runs, with the last good configuration if this one is refused."""
        if self.process:
            logger.warning("HAProxy ended: process %d. Starting it again.", self.process.pid)
            self.counts = self.counts._replace(restarts=self.counts.restarts + 1)
            self.process.close()
            self.process = None
        before = self.loaded
        try:
            self._start(fitted(desired, before) or desired if before else desired)
        except KproxyError:
            if before and digest(before) != digest(desired):
                self._start(with_servers_of(before, desired))
            raise

    def _start(self, desired: Configuration) -> None:
        """Start a process in place of the current one, if there is one. Raises KproxyError."""
        description = digest(desired)
        if error := self._refused.get(description):
            raise error
        folder = self._folders.following()
        contents = self._launcher.contents(desired, folder)
        self._folders.write(folder, {**contents, LOADED: msgspec.msgpack.encode(desired)})
        try:
            if self.loaded is None or digest(self.loaded) != description:
                self._launcher.program.check(folder)
            new = self._launcher.start(folder, self.process)
        except RefusedError as error:
            self._refused = {description: error}
            self._folders.discard(folder)
            raise
        except AbsentError:
            self._folders.keep(folder)  # its files are what another program has to start HAProxy with
            raise
        except KproxyError:
            self._folders.discard(folder)
            raise
        if self.process:
            self.process.close()
        self.process, self.loaded, self._running = new, desired, started(desired)
        self._folders.keep(folder)
        logger.info("HAProxy runs: process %d", new.pid)
        self._change(desired)  # what the file cannot say, for example that a server is draining


def _loaded(folder: Path) -> Configuration | None:
    """Return the configuration with which a process was started; None if it cannot be read."""
    try:
        return msgspec.msgpack.decode((folder / LOADED).read_bytes(), type=Configuration)
    except (OSError, ValueError, RecursionError):  # ValueError also for text that is not UTF-8
        return None
