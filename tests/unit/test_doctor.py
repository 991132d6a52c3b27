"""The doctor: each break of tests/breaks.py is named, and nothing else; what is healthy has no finding."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from kproxy.cli import main, settings_from
from kproxy.control.lookup import look_up
from kproxy.doctor import gather as gathering
from kproxy.doctor.core.causes import CAUSES
from kproxy.doctor.core.diagnosis import diagnose
from kproxy.doctor.core.facts import Daemon, Facts
from kproxy.doctor.core.node import taken_ports
from kproxy.doctor.core.objects import Objects
from kproxy.doctor.core.views import as_json, as_text
from kproxy.kernel.netlink.core.route import ListeningSocket
from kproxy.model import Protocol
from kproxy.problems import KproxyError
from kproxy.settings.settings import Settings
from kproxy.sources.progress import Progress
from tests.breaks import (
    FACTS_BREAKS,
    FLAGS,
    INPUT_BREAKS,
    UNSEEN,
    FactsBreak,
    InputBreak,
    World,
    asked_from,
    gateway,
    healthy,
    healthy_facts,
)
from tests.unit.make import service
from tests.unit.nobody import NOBODY, as_nobody


def arguments(folder: Path, world: World) -> list[str]:
    """Write the manifests. Returns the flags that read them."""
    path = folder / "in.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(world.values())}))
    return [*FLAGS.split(), "-f", str(path), "--state-dir", str(folder / "state")]


class Doctor:
    """Runs `kproxy doctor -f` in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capsys = capsys

    def __call__(self, world: World, question: str = "") -> tuple[int, str]:
        """Return the exit status and the output."""
        status = main(["doctor", *arguments(self.folder, world), *shlex.split(question)])
        captured = self.capsys.readouterr()
        return status, captured.out + captured.err


@pytest.fixture(name="doctor")
def _doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(tmp_path, capsys)


@pytest.fixture(name="facts")
def _facts(tmp_path: Path) -> Facts:
    return healthy_facts(look_up(settings_from(["doctor", *arguments(tmp_path, healthy())])))


HEALTHY = [
    "",
    "web",
    "web:80",
    "web:http",
    "web:53/udp",
    "sliced",
    "198.51.100.7:80",
    "192.0.2.1:30080",
    "node:30080",
]
CLIENTS = [
    "web --from pod/web-1",
    "web --from node",
    "web --from 10.244.9.9",
    "198.51.100.7:80 --from 203.0.113.9",
]


@pytest.mark.parametrize("question", [*HEALTHY, *CLIENTS])
def test_a_healthy_input_has_no_finding(doctor: Doctor, question: str) -> None:
    status, output = doctor(healthy(), question)
    assert (status, output.partition(";")[0]) == (0, "nothing found"), output


def test_a_gateway_that_serves_has_no_finding(doctor: Doctor) -> None:
    world = healthy()
    gateway("sliced")(world)
    for question in ("", "198.51.100.20:81", "sliced"):
        status, output = doctor(world, f"{question} --load-balancer-pool 198.51.100.20")
        assert (status, output.partition(";")[0]) == (0, "nothing found"), output


def test_10_000_healthy_services_have_no_finding(doctor: Doctor) -> None:
    world = healthy()
    for number in range(10_000):
        address = f"10.96.{1 + number // 250}.{1 + number % 250}"
        port = {"name": "http", "port": 80, "targetPort": "http"}
        own = f"many-{number}"
        world[own] = service(own, clusterIP=address, selector={"app": "web"}, ports=[port])
    assert doctor(world)[0] == 0


@pytest.mark.parametrize("row", INPUT_BREAKS, ids=lambda row: f"{row.id} {row.expected}")
def test_a_break_of_the_input_is_named_and_nothing_else(doctor: Doctor, row: InputBreak) -> None:
    world = healthy()
    row.change(world)
    status, output = doctor(world, row.question)
    assert (status, set(re.findall(r"^KP\d+", output, re.MULTILINE))) == (1, {row.id})
    assert row.expected in output


def test_the_output_as_json(doctor: Doctor) -> None:
    found = json.loads(doctor(healthy(), "wbe -o json")[1])
    assert found["checked"] > 20
    assert found["findings"] == [
        {
            "id": "KP001",
            "title": "There is no such Service",
            "sureness": "sure",
            "subject": "Service default/wbe",
            "what": "there is no Service default/wbe",
            "evidence": ["a similar name in namespace default: web"],
            "effect": "The name does not resolve, and no address leads to it.",
            "action": "Correct the name or the namespace (-n), or create the Service.",
        }
    ]


@pytest.mark.parametrize("client", ["", "pod/web-1", "node"])
def test_healthy_facts_have_no_finding(facts: Facts, client: str) -> None:
    found = diagnose(asked_from(facts, client) if client else facts)
    assert (found.findings, found.unseen, found.status) == ((), (), 0)


@pytest.mark.parametrize("row", FACTS_BREAKS, ids=lambda row: f"{row.id} {row.expected}")
def test_a_break_of_the_facts_is_named_and_nothing_else(facts: Facts, row: FactsBreak) -> None:
    found = diagnose(row.change(facts))
    assert {each.cause.id for each in found.findings} == {row.id}
    assert row.expected in as_text(found)


def test_a_program_of_the_node_that_is_an_endpoint_is_no_finding(facts: Facts, tmp_path: Path) -> None:
    world = healthy()
    world["web-1"]["status"]["podIPs"] = [{"ip": "192.0.2.1"}]
    world["web"]["spec"]["ports"][0] |= {"targetPort": 30080}
    snapshot = look_up(settings_from(["doctor", *arguments(tmp_path, world)]))
    sockets = (ListeningSocket(Protocol.TCP, bytes(16), 30080),)
    ids = {each.cause.id for each in diagnose(facts._replace(programs=sockets)).findings}
    assert ids == {"KP062"}
    assert not list(taken_ports(Objects(snapshot), sockets))


def test_each_cause_has_a_break() -> None:
    assert {row.id for row in (*INPUT_BREAKS, *FACTS_BREAKS)} == {cause.id for cause in CAUSES}


def test_ids_are_sorted_and_unique() -> None:
    ids = [cause.id for cause in CAUSES]
    assert ids == sorted(set(ids))


def test_what_cannot_be_seen_is_named_with_its_causes(facts: Facts) -> None:
    found = diagnose(facts._replace(tracking=UNSEEN, sysctls=UNSEEN))
    assert found.status == 2
    assert "cannot see: Permission denied (KP050, KP051, KP052, KP059)" in as_text(found)
    objects = json.loads(as_json(found))["findings"]
    assert {each["sureness"] for each in objects} == {"cannot see"}


def test_many_findings_of_one_cause_are_summed_up(doctor: Doctor) -> None:
    world = healthy() | {f"lost-{n}": service(f"lost-{n}", selector={"app": "lost"}) for n in range(9)}
    status, output = doctor(world)
    assert status == 1
    assert output.count("KP002 sure") == 5
    assert "... and 4 more of KP002 (-o json)" in output


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("web --from pod/nobody", "Pod default/nobody not found"),
        ("--from node", "--from needs a SERVICE"),
        ("web -o yaml", "--output: 'yaml' is not one of json."),
        ("web:80:90", "is not HOST:PORT"),
    ],
)
def test_a_question_that_cannot_be_looked_at_has_status_2(
    doctor: Doctor, question: str, message: str
) -> None:
    status, output = doctor(healthy(), question)
    assert status == 2
    assert message in output


@as_nobody
def test_another_user_is_told_what_cannot_be_seen() -> None:
    manifests = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(healthy().values())})
    command = [sys.executable, "-m", "kproxy", "doctor", "-f", "-", "--kernel", "-o", "json", *FLAGS.split()]
    flags = ["--state-dir", "/nonexistent/kproxy"]
    done = subprocess.run([*command, *flags], user=NOBODY, input=manifests, capture_output=True, text=True)
    found = json.loads(done.stdout)["findings"]
    unseen = {each["id"] for each in found if each["sureness"] == "cannot see"}
    assert {"KP041", "KP044", "KP045", "KP055", "KP070", "KP073"} <= unseen


def test_a_kproxy_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, which takes long."""
    asked: list[bool] = []

    def look_up(*_: object) -> NoReturn:
        asked.append(True)
        raise KproxyError("kproxy.sock: timed out")

    for name in ("HOST", "SERVICES"):
        monkeypatch.setattr(gathering, name, dict.fromkeys(getattr(gathering, name), lambda *_: None))
    monkeypatch.setattr(gathering, "look_up", look_up)
    facts = gathering.gather(Settings(node_name="n1", resolv_conf="/dev/null"), "", Progress())
    assert facts.daemon == Daemon("kproxy.sock: timed out")
    assert asked == [True]
