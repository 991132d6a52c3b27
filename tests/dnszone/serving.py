"""A running `kproxy dns serve`, and dig as its client."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dns.rrset
import yaml

from tests.dnszone.table import Reply, section

ROOT = Path(__file__).parents[2]
READY = "kproxy is ready"
LISTENING = re.compile(r"serving DNS on (?:\[([^]]+)\]|([\d.]+)):(\d+)")


@contextmanager
def serving(manifests: Path, state: Path, *flags: str) -> Iterator[dict[str, int]]:
    """Serve manifests on loopback until the block ends. Yields the port of each address."""
    with server(manifests, state, *flags) as (_, ports):
        yield ports


@contextmanager
def server(
    manifests: Path, state: Path, *flags: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """Serve manifests, too. Yields the process as well."""
    command = [
        sys.executable,
        "-m",
        "kproxy",
        "dns",
        "serve",
        "-f",
        str(manifests),
        "--state-dir",
        str(state),
    ]
    command += [
        "--listen",
        "127.0.0.1:0,[::1]:0",
        "--node-name",
        "n1",
        "--node-ip",
        "192.0.2.1",
        "--upstream",
        "",
        *flags,
    ]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        ports: dict[str, int] = {}
        try:
            for line in process.stderr:
                if found := LISTENING.search(line):
                    ports[found[1] or found[2]] = int(found[3])
                if READY in line and len(ports) == 2:
                    break
            yield process, ports
        finally:
            process.terminate()
            process.stderr.read()
        assert process.wait() == 0


def dig(host: str, port: int, queries: Iterable[str], *flags: str) -> list[Reply]:
    """Ask a server with one dig for all queries. Returns the reply to each."""
    command: Sequence[str] = ["dig", f"@{host}", "-p", str(port), *flags, "+yaml", "+tries=3", "-f", "-"]
    text = "".join(f"{query}\n" for query in queries)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [_reply(each["message"]["response_message_data"]) for each in yaml.safe_load(done.stdout)]


def _reply(data: dict[str, object]) -> Reply:
    names = ("ANSWER_SECTION", "AUTHORITY_SECTION", "ADDITIONAL_SECTION")
    return Reply(str(data["status"]), *(_records(data.get(name, [])) for name in names))


def _records(lines: object) -> frozenset[str]:
    assert isinstance(lines, list)
    words = (line.split(" ", 4) for line in lines)
    return section(
        [dns.rrset.from_text(name, int(ttl), of, kind, data) for name, ttl, of, kind, data in words]
    )
