"""What the daemon does with the results of audits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from kproxy.daemon import auditor as auditor_module
from kproxy.daemon.auditor import Auditor
from kproxy.kernel.netlink.socket import Interrupted
from kproxy.model import Family
from kproxy.nft.elements import Keys
from kproxy.reconcile.reconciler import Edit

KEYS = {"services": {b"key"}}


class Loop:
    """Records what is to be compared and repaired."""

    def __init__(self) -> None:
        self.idle = asyncio.Lock()
        self.suspects: list[tuple[frozenset[Family], list[Edit]]] = []

    def suspect(self, families: frozenset[Family], edits: Iterable[Edit] = ()) -> None:
        self.suspects.append((families, list(edits)))


@pytest.mark.parametrize(
    ("applied", "result", "suspect"),
    [
        pytest.param({"services": {}}, {}, None, id="nothing"),
        pytest.param({"services": {}}, KEYS, (frozenset(), [Edit(Family.IPV4, KEYS)]), id="elements"),
        pytest.param({"services": {}}, None, (frozenset({Family.IPV4}), []), id="the structure"),
        pytest.param({"services": {}}, Interrupted(), (frozenset({Family.IPV4}), []), id="a failure"),
        pytest.param({}, {}, (frozenset({Family.IPV4}), []), id="a table that was never compared"),
    ],
)
def test_what_an_audit_finds_is_repaired_by_a_round(
    applied: Any, result: Keys | Exception | None, suspect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Audit:
        def __init__(self, dataplane: object) -> None:
            pass

        def read(self) -> None:
            if isinstance(result, Exception):
                raise result

        def finish(self) -> Any:
            return result

    monkeypatch.setattr(auditor_module, "Audit", Audit)

    async def story() -> list[Any]:
        loop: Any = Loop()
        dataplanes: Any = {Family.IPV4: SimpleNamespace(applied=applied)}
        audited = asyncio.Event()
        auditor = Auditor(dataplanes, loop, lambda family, seconds: audited.set())
        task = asyncio.create_task(auditor.run())
        assert auditor.request(frozenset({Family.IPV4})) == frozenset()
        async with asyncio.timeout(30):
            while not (audited.is_set() or loop.suspects):
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        found: list[Any] = loop.suspects
        return found

    assert asyncio.run(story()) == ([] if suspect is None else [suspect])
