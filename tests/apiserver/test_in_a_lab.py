"""The server in a network namespace of the lab, for clients in the lab."""

from __future__ import annotations

import sys

import pytest
from netns_lab.lab import Lab

from tests.apiserver import ApiServer
from tests.apiserver.objects import SERVICES, service
from tests.ports import kept

pytestmark = pytest.mark.lab

LIST = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


def test_an_external_client_reaches_a_server_on_a_node(lab: Lab) -> None:
    node, client = lab.node("n1"), lab.client("outside")
    for family in (4, 6):
        host = node.address(family)
        with ApiServer(host=host, bind=lambda host, port: node.inside(lambda: kept(host, port))) as api:
            api.create(service("web"))
            for _ in range(2):
                done = client.run([sys.executable, "-c", LIST, api.url + SERVICES], capture_output=True)
                assert '"name":"web"' in done.stdout, done.stderr
                api.restart()
