"""`kproxy run --manifests`: the tables follow the folder, the pods, and changes by other programs."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from netns_lab.lab import Lab
from netns_lab.probe import Outcome, http_get, many
from netns_lab.topology import Family

from tests.support import (
    EDITABLE,
    FAMILIES,
    SERVICE_IP,
    Running,
    all_pods,
    eventually,
    service,
    slices,
    sticky,
)

pytestmark = pytest.mark.lab

PODS = ("pod-1", "pod-2", "pod-3")


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path) as running:
        yield running


def answering(lab: Lab) -> set[str]:
    client = lab.client("outside")
    if http_get(client, SERVICE_IP[4], 80, timeout=1).outcome is not Outcome.ANSWERED:
        return set()
    return all_pods(client, SERVICE_IP[4], 80)


def content(running: Running) -> list[str]:
    """Return the content of the tables, sorted and without counters."""
    lines = re.sub(r"counter packets \d+ bytes \d+", "", running.kproxy.ruleset()).splitlines()
    return sorted(line.strip().rstrip(",") for line in lines if "expires" not in line)


def has_chain(running: Running, name: str) -> bool:
    return running.kproxy.ruleset().count(f"chain {name} ") == 2  # one for each family


def test_a_folder_is_followed(lab: Lab, running: Running) -> None:
    """Files are created, edited, made invalid, corrected and deleted."""
    assert answering(lab) == set()
    running.write("web", service(), *slices(lab, ["pod-1"]))
    eventually(lambda: answering(lab) == {"pod-1"}, running.logged)

    whole = running.manifests / "web.json"
    text = whole.read_text()
    (running.manifests / ".web.json.swp").write_text("swap")
    whole.rename(running.manifests / "web.json~")
    whole.write_text(text.replace(lab.pod("pod-1").address(4), lab.pod("pod-2").address(4)))
    eventually(lambda: answering(lab) == {"pod-2"}, running.logged)

    whole.write_text(text[: len(text) // 2])
    eventually(lambda: "not JSON" in running.logged(), running.logged)
    assert answering(lab) == {"pod-2"}
    whole.write_text(text)
    eventually(lambda: answering(lab) == {"pod-1"}, running.logged)
    eventually(lambda: "solved: " in running.logged(), running.logged)

    whole.unlink()
    eventually(lambda: answering(lab) == set(), running.logged)


def test_the_tables_stay_when_kproxy_ends(lab: Lab, running: Running) -> None:
    running.write("web", service(), *slices(lab, PODS))
    eventually(lambda: answering(lab) == set(PODS), running.logged)
    for number in (signal.SIGTERM, signal.SIGINT):
        assert running.stop(number) == 0
        assert answering(lab) == set(PODS)
        before = running.kproxy.generation()
        running.start()
        assert running.kproxy.generation() == before + len(FAMILIES)  # it only becomes the owner
    assert running.stop(signal.SIGKILL) != 0
    assert answering(lab) == set(PODS)


@pytest.mark.parametrize(
    "damage", ["flush ruleset", "delete table ip kproxy", "flush chain ip kproxy services"]
)
def test_changes_by_other_programs_are_reverted(lab: Lab, tmp_path: Path, damage: str) -> None:
    with Running(lab.node("n1"), tmp_path, EDITABLE) as running:
        running.write("web", service(), *slices(lab, PODS))
        eventually(lambda: answering(lab) == set(PODS), running.logged)
        right = content(running)
        running.kproxy.nft(damage)
        eventually(lambda: content(running) == right, running.logged)
        assert answering(lab) == set(PODS)


@pytest.mark.parametrize("family", FAMILIES)
def test_affinity_of_a_service_that_is_added_later(lab: Lab, running: Running, family: Family) -> None:
    """The Service needs a chain that the table does not have. A client stays when an endpoint is added."""
    client = lab.client("outside")
    for timeout in (600, 900):
        running.write("web", service(**sticky(timeout)), *slices(lab, PODS[:2]))
        chain = f"remember-{timeout}"
        eventually(partial(has_chain, running, chain), running.logged)
    (first,) = many(client, SERVICE_IP[family], 80, 20, concurrency=1)
    running.write("web", service(**sticky(900)), *slices(lab, PODS))
    eventually(lambda: "3 endpoints" in running.logged(), running.logged)
    assert set(many(client, SERVICE_IP[family], 80, 20, concurrency=1)) == {first}
    running.write("web", service(**sticky(900)), *slices(lab, [pod for pod in PODS if pod != first]))
    eventually(lambda: set(many(client, SERVICE_IP[family], 80, 9, concurrency=1)) != {first}, running.logged)
    assert "ERROR" not in running.logged()
    assert "WARNING" not in running.logged()


def test_the_views_show_the_running_kproxy(lab: Lab, running: Running) -> None:
    running.write("web", service(), *slices(lab, PODS))
    eventually(lambda: answering(lab) == set(PODS), running.logged)
    assert SERVICE_IP[4] in running.view("get", "svc", "web")
    assert "in use by `kproxy run`" in running.kproxy.run("sync").stderr


def test_a_removed_state_directory_is_created_again(lab: Lab, running: Running) -> None:
    running.write("web", service(), *slices(lab, ["pod-1"]))
    shutil.rmtree(running.kproxy.state)
    eventually(lambda: SERVICE_IP[4] in running.view("get", "svc", "web"), running.logged)
    # It is locked again, so no other kproxy uses it.
    assert "in use by `kproxy run`" in running.kproxy.run("sync").stderr


def test_a_removed_folder_removes_nothing(lab: Lab, running: Running) -> None:
    running.write("web", service(), *slices(lab, ["pod-1"]))
    eventually(lambda: answering(lab) == {"pod-1"}, running.logged)
    shutil.move(running.manifests, running.manifests.with_name("elsewhere"))
    eventually(lambda: "No such file" in running.logged(), running.logged)
    assert answering(lab) == {"pod-1"}
    running.manifests.mkdir()
    running.write("web", service(), *slices(lab, ["pod-2"]))
    eventually(lambda: answering(lab) == {"pod-2"}, running.logged)
