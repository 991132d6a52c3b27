"""What the commands that show something show: the running kproxy's snapshot, or that of manifests."""

from __future__ import annotations

from pathlib import Path

from kproxy.controlplane.settle import resolve
from kproxy.decode import Decoded, decode
from kproxy.settings.derived import ranges
from kproxy.settings.settings import Settings
from kproxy.show.snapshot import Snapshot
from kproxy.sources.files import read_documents
from kproxy.sources.node import find_node
from kproxy.state.store import Store


def read_input(chosen: Settings) -> Decoded:
    """Read and decode all manifests; what could not be read is among the problems."""
    documents, unread = read_documents(chosen.manifests)
    decoded = decode(documents)
    if unread:
        decoded.unreadable.everything = True
    return decoded._replace(problems=unread + decoded.problems)


def look_up(chosen: Settings) -> Snapshot:
    """The manifests as this node would serve them; without manifests, what the running kproxy holds.

    The state directory is read, not changed.
    """
    if not chosen.manifests:
        from kproxy.control.channel import fetch  # with asyncio, which takes long to import

        return fetch(Path(chosen.state_dir))
    decoded = read_input(chosen)
    held = Store(Path(chosen.state_dir)).load()
    own = find_node(chosen, decoded.state.nodes)
    found = resolve(decoded, held, ranges(chosen), own)
    return Snapshot(
        decoded.state, found.services, found.frontends, found.problems, own, warnings=tuple(found.warnings)
    )
