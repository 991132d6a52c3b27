"""`kproxy dns connect --apply` lets a real resolver find Services by name, and `--undo` ends that."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from netns_lab.lab import Lab

from tests.support import Running, eventually, service

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/systemd:/lib/systemd"
UNBOUND = """\
server:
    interface: 127.0.0.1
    chroot: ""
    username: ""
    use-syslog: no
    private-address: 10.0.0.0/8
    local-zone: "." refuse
include-toplevel: "/etc/unbound/unbound.conf.d/*.conf"
"""
SYSTEMCTL = """\
#!/bin/sh -eu
# In place of systemd, which does not run in this namespace: restarts the resolver.
test "$1" = try-restart
if [ -f "$FOLDER/pid" ]; then
    pid=$(cat "$FOLDER/pid")
    kill "$pid"
    while [ -d "/proc/$pid" ]; do :; done
fi
sh -c "$START" > "$FOLDER/log" 2>&1 &
echo $! > "$FOLDER/pid"
"""
STORY = r"""
# The changes in /etc and /run disappear with the mount namespace.
mkdir "$FOLDER/etc"
mount -t tmpfs none "$FOLDER/etc"
mkdir "$FOLDER/etc/upper" "$FOLDER/etc/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$FOLDER/etc/upper,workdir=$FOLDER/etc/work" none /etc
mount -t tmpfs none /run
mkdir -p /run/systemd /etc/systemd /etc/unbound/unbound.conf.d /etc/dnsmasq.d /etc/systemd/resolved.conf.d
rm -rf /etc/unbound/unbound.conf.d/* /etc/dnsmasq.d/* /etc/systemd/resolved.conf.d/*
rm -f /etc/resolv.conf
: > /etc/resolv.conf
printf '[Resolve]\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\n' > /etc/systemd/resolved.conf
grep -q ^systemd-resolve: /etc/passwd || {
    echo systemd-resolve:x:64999:64999::/:/bin/false >> /etc/passwd
    echo systemd-resolve:x:64999: >> /etc/group
}
PATH="$FOLDER/bin:$PATH"
ask() {  # again, until the resolver has started
    timeout 30 sh -c 'until dig +tries=1 +time=5 "@$ADDRESS" "$@" > "$FOLDER/reply" 2>&1; do :; done' ask "$@"
    sed -n 's/.*status: \([A-Z]*\).*/\1/p; s/^[^;].*\t\(A\|PTR\)\t/\1 /p' "$FOLDER/reply"
}
both() {
    ask web.default.svc.cluster.local
    ask -x 10.96.10.10
}
systemctl try-restart "$NAME"
both
echo connected
"$PYTHON" -m kproxy dns connect --apply --resolver "$NAME" --service-cidr 10.96.0.0/16 > /dev/null
both
echo undone
"$PYTHON" -m kproxy dns connect --undo > /dev/null
both
kill "$(cat "$FOLDER/pid")"
"""


class Case(NamedTuple):
    """A resolver: how it starts, its address, and its two replies before it is connected."""

    program: str
    start: str
    address: str
    before: list[str]


CASES = [
    Case(
        "dnsmasq",
        "exec dnsmasq --keep-in-foreground --conf-file=/dev/null --conf-dir=/etc/dnsmasq.d --no-resolv "
        "--no-hosts --listen-address=127.0.0.1 --bind-interfaces --pid-file= --user=root --stop-dns-rebind "
        "--bogus-priv",
        "127.0.0.1",
        ["REFUSED", "NXDOMAIN"],
    ),
    Case("unbound", 'exec unbound -d -p -c "$FOLDER/unbound.conf"', "127.0.0.1", ["REFUSED", "NXDOMAIN"]),
    Case("systemd-resolved", "exec systemd-resolved", "127.0.0.53", ["REFUSED", "REFUSED"]),
]


@pytest.fixture
def running(lab: Lab, tmp_path: Path) -> Iterator[Running]:
    with Running(lab.node("n1"), tmp_path, ["--upstream", ""]) as found:
        found.write("web", service("web", families=[4]))
        yield found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_a_resolver_of_a_node_is_connected(case: Case, lab: Lab, running: Running, tmp_path: Path) -> None:
    if shutil.which(case.program, path=SBIN) is None:
        pytest.skip(f"no {case.program} here (Debian: dnsmasq-base, unbound, systemd-resolved)")
    node = lab.node("n1")
    known = ["dig", "+short", "@10.96.0.10", "web.default.svc.cluster.local"]
    eventually(lambda: node.run(known, capture_output=True).stdout == "10.96.10.10\n", running.logged)
    folder = tmp_path / "host"
    (folder / "bin").mkdir(parents=True)
    (folder / "unbound.conf").write_text(UNBOUND)
    (folder / "bin" / "systemctl").write_text(SYSTEMCTL)
    (folder / "bin" / "systemctl").chmod(0o755)
    own = {"FOLDER": str(folder), "START": case.start, "ADDRESS": case.address, "NAME": case.program}
    environment = {**os.environ, "PATH": SBIN, "PYTHON": sys.executable, **own}
    command = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-euc", STORY]
    done: subprocess.CompletedProcess[str] = node.run(
        command, capture_output=True, env=environment, cwd=ROOT, timeout=300
    )
    connected = ["NOERROR", "A 10.96.10.10", "NOERROR", "PTR web.default.svc.cluster.local."]
    expected = [*case.before, "connected", *connected, "undone", *case.before]
    assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr
