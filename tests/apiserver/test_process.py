"""The server as a separate process, controlled through HTTP."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver.client import Client
from tests.apiserver.objects import SERVICES, SLICES, service


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server with four Services, one of them from a file."""
    file = tmp_path / "objects.json"
    file.write_text(json.dumps({"kind": "List", "items": [service("web")]}))
    command = [sys.executable, "-m", "tests.apiserver", "--services", "3", "--endpoints", "2"]
    process = subprocess.Popen([*command, "--objects", str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_a_separate_process(url: str) -> None:
    with Client(url) as client, Client(url) as operator:
        assert client.get(SERVICES).names == ["web", "service-0", "service-1", "service-2"]
        assert [len(item["endpoints"]) for item in client.get(SLICES).json["items"]] == [2, 2, 2]
        revision = client.get(SERVICES).revision
        with client.watch(SERVICES, revision) as events:
            changes = {"apply": [service("web", port=81), service("new")], "delete": [service("web")]}
            done = operator.ask("POST", "/_control/objects", changes).json
            assert [next(events)["type"] for _ in range(3)] == ["MODIFIED", "ADDED", "DELETED"]
            now = time.monotonic()
            sent = operator.get("/_control/sent", after=revision).json
            assert [(event[1], event[2]) for event in sent] == [
                ("MODIFIED", "default/web"),
                ("ADDED", "default/new"),
                ("DELETED", "default/web"),
            ]
            assert sent[-1][0] == done["revision"]
            assert done["time"] <= sent[0][3] <= now
            operator.ask("POST", "/_control/watches", {"do": "expire", "resource": "services"})
            assert next(events)["object"]["code"] == 410
        fault = {"effect": {"type": "answer", "code": 500}, "verb": "list", "times": 1}
        assert operator.ask("POST", "/_control/fault", fault).status == 200
        assert [client.get(SERVICES).status for _ in range(2)] == [500, 200]
        assert operator.ask("POST", "/_control/fault", {"effect": {"type": "nonsense"}}).status == 400
        operator.ask("POST", "/_control/server", {"do": "lose"})
        wait_until_empty(url)


def wait_until_empty(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with Client(url) as client:
                if client.get(SERVICES).names == []:
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("the objects are still there")
