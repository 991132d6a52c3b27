"""The commands that change HAProxy, what it replies, and the files of a process, without an HAProxy.

tests/lab/test_gateway_driver.py sends the same commands to a real one.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from kproxy.gateway.certificates import self_signed
from kproxy.gateway.core import replies
from kproxy.gateway.core.configuration import Configuration, Section, Server, State
from kproxy.gateway.core.exporter import joined
from kproxy.gateway.core.files import Identity, complaint, digest, files
from kproxy.gateway.core.plan import (
    PAYLOAD,
    Plan,
    fingerprint,
    map_commands,
    placed,
    plan,
    started,
    unwanted_lines,
    with_servers_of,
)

A, B, C = (Server(f"10.0.0.{number}", 80) for number in (1, 2, 3))
HEAD = """\
global
    # made by a test
    maxconn 10
frontend f
    bind :80

    # Ingress default/web
    bad
"""


def configuration(**parts: object) -> Configuration:
    base = Configuration(
        HEAD,
        {"d.web": Section(4), "d.plain": Section(0)},
        {"d.web": (A, B), "d.plain": ()},
        {"hosts.map": (("a", "d.web"),)},
        {"x.pem": b"one"},
        {"tls.list": (("x.pem", ("x.org",)),)},
    )
    return replace(base, **parts)


def planned(wanted: Configuration, before: Configuration | None = None) -> Plan:
    found = plan(started(before or configuration()), wanted)
    assert found is not None
    return found


def lines(found: Plan) -> list[str]:
    """All commands of a plan, without payloads."""
    maps = [f"map {file} {entries}" for file, entries in found.maps.items()]
    swept = [f"sweep {file}" for file in found.swept]
    before, after, last = ([each.name for each in part] for part in (found.before, found.after, found.last))
    return [*before, *maps, *after, *swept, *last]


DRAINED = replace(B, state=State.DRAIN)
CHANGES = {
    "nothing": ({}, []),
    "a new server": (
        {"backends": {"d.web": (A, B, C)}},
        [
            "set server d.web/s3 addr 10.0.0.3 port 80;set server d.web/s3 weight 1;"
            "set server d.web/s3 state ready"
        ],
    ),
    "a removed server": ({"backends": {"d.web": (B,)}}, ["set server d.web/s1 state maint"]),
    "another server, into an empty slot first": (
        {"backends": {"d.web": (C,)}},
        [
            "set server d.web/s3 addr 10.0.0.3 port 80;set server d.web/s3 weight 1;"
            "set server d.web/s3 state ready",
            "set server d.web/s1 state maint",
            "set server d.web/s2 state maint",
        ],
    ),
    "a weight": ({"backends": {"d.web": (A, replace(B, weight=7))}}, ["set server d.web/s2 weight 7"]),
    "an end": ({"backends": {"d.web": (A, DRAINED)}}, ["set server d.web/s2 state drain"]),
    "no servers": (
        {"backends": {}},
        ["set server d.web/s1 state maint", "set server d.web/s2 state maint"],
    ),
    "a map": ({"maps": {"hosts.map": (("b", "d.web"),)}}, ["map hosts.map (('b', 'd.web'),)"]),
    "a renewed certificate": (
        {"certificates": {"x.pem": b"-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n"}},
        ["set ssl cert x.pem <<", "commit ssl cert x.pem"],
    ),
    "another certificate in place of one": (
        {"certificates": {"y.pem": b"two"}, "certificate_lists": {"tls.list": (("y.pem", ("y.org",)),)}},
        [
            *("new ssl cert y.pem", "set ssl cert y.pem <<", "commit ssl cert y.pem"),
            *("add ssl crt-list tls.list <<", "sweep tls.list", "del ssl cert x.pem"),
        ],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_commands_of_a_change_are_in_an_order_that_serves_each_request(change: str) -> None:
    parts, expected = CHANGES[change]
    found = planned(configuration(**parts))  # type: ignore[arg-type]
    assert lines(found) == expected
    assert found.empty is (not expected)
    again = plan(found.result, configuration(**parts))  # type: ignore[arg-type]
    assert again is not None
    assert again.empty


RELOADS: dict[str, dict[str, object]] = {
    "more servers than slots": {"backends": {"d.web": tuple(Server(f"10.0.0.{n}", 80) for n in range(5))}},
    "an unknown backend": {"backends": {"d.other": (A,)}},
    "an unknown map": {"maps": {"other.map": ()}},
    "an unknown list": {"certificate_lists": {"other.list": ()}},
    "a certificate that is larger than HAProxy's buffer": {
        "certificates": {"y.pem": b"-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n" * PAYLOAD}
    },
}


@pytest.mark.parametrize("change", RELOADS)
def test_what_commands_cannot_do_needs_a_reload(change: str) -> None:
    assert plan(started(configuration()), configuration(**RELOADS[change])) is None


def test_a_slot_gets_another_server_only_in_maintenance() -> None:
    full = configuration(sections={"d.web": Section(2)})
    found = planned(replace(full, backends={"d.web": (A, C)}), full)
    assert [each.name.split(";")[0] for each in found.before] == ["set server d.web/s2 state maint"]


def test_servers_keep_their_slots() -> None:
    assert placed((A, None, B), (C, B)) == (None, C, B)
    assert placed((A, None, B), (C, B, A)) == (A, C, B)
    assert placed((A,), (B, C)) is None


def test_a_large_map_is_loaded_in_pieces_that_fit() -> None:
    entries = tuple((f"host-{number}", "d.web") for number in range(2000))
    commands = list(map_commands("hosts.map", 3, entries))
    assert len(commands) > 1
    assert all(len(each.text) < PAYLOAD + 100 for each in commands)
    sent = [line for each in commands for line in each.text.splitlines()[1:]]
    assert sent == [f"{key} {value}" for key, value in entries]
    assert {each.name for each in commands} == {"add map @3 hosts.map <<"}


def test_entries_of_a_list_are_deleted_by_their_line() -> None:
    listed = replies.listed(
        "# tls.list\nx.pem:1 x.org\ny.pem:2 y.org *.y.org\ny.pem:3 y.org\nx.pem:4 x.org\nz.pem:5\n"
    )
    wanted = (("x.pem", ("x.org",)), ("y.pem", ("y.org",)))
    assert list(unwanted_lines(listed, wanted)) == ["y.pem:2", "x.pem:4", "z.pem:5"]


def test_a_kept_configuration_still_gets_servers() -> None:
    loaded = configuration(spares={"d.new": "d.web"})
    many = tuple(Server(f"10.0.0.{number}", 80) for number in range(9))
    assert with_servers_of(loaded, configuration(backends={"d.new": (C,)})).backends["d.web"] == (C,)
    assert with_servers_of(loaded, configuration(backends={"d.new": many})).backends["d.web"] == (A, B)


@dataclass
class StateRow:
    """A row of `show servers state`."""

    backend: str = "d.web"
    name: str = "s1"
    address: str = "10.0.0.1"
    admin: int = 0
    weight: int = 1
    port: int = 80
    rest: str = field(default="1 0 1 0 0 8 0 0 0 -", repr=False)

    def __str__(self) -> str:
        head = f"3 {self.backend} 1 {self.name} {self.address} 2 {self.admin} {self.weight} {self.rest}"
        return f"{head} {self.port} - 0 0 - - 0"


COLUMNS = (
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
    " srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state"
    " srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port"
    " srv_check_addr srv_agent_addr srv_agent_port"
)


def test_the_state_of_servers_is_read() -> None:
    rows = (
        StateRow(),
        StateRow(name="s2", address="fd00::1", admin=12, weight=0),
        StateRow(name="s3", admin=5),
    )
    found = replies.servers("\n".join(["1", COLUMNS, *map(str, rows), ""]))
    assert found == {"d.web": (A, Server("fd00::1", 80, 0, State.DRAIN), None)}


@pytest.mark.parametrize("row", [StateRow(name="s2"), StateRow(name="mine")], ids=str)
def test_servers_of_other_programs_are_noticed(row: StateRow) -> None:
    with pytest.raises(ValueError, match=r"where s1 is expected"):
        replies.servers("\n".join(["1", COLUMNS, str(row)]))


def test_another_format_is_noticed() -> None:
    with pytest.raises(ValueError, match="version 2"):
        replies.servers(f"2\n{COLUMNS}\n")
    with pytest.raises(ValueError, match="a row of 3 columns"):
        replies.servers(f"1\n{COLUMNS}\n3 d.web 1\n")
    for incomplete in ("", "1", "1\n# be_id"):
        with pytest.raises(ValueError, match=r".+"):
            replies.servers(incomplete)
    with pytest.raises(ValueError, match="Unknown map"):
        replies.entries("Unknown map identifier. Please use #<id> or <file>.\n\n")
    with pytest.raises(ValueError, match="Unknown map"):
        replies.version("Unknown map identifier.\n")
    with pytest.raises(ValueError, match="entry"):
        list(replies.listed("what is this\n"))


def test_other_replies_are_read() -> None:
    assert replies.entries("0x55 /a b\n0x56 c d e\n\n") == (("/a", "b"), ("c", "d e"))
    assert replies.certificates("# transaction\n*x.pem\n# filename\nx.pem\ny.pem\n\n") == ["x.pem", "y.pem"]
    assert replies.version("New version created: 12\n\n") == 12
    shown = replies.information("Filename: x.pem\nSHA1 FingerPrint: AB\nSubject: /CN=a:b\nnothing\n")
    assert (shown["SHA1 FingerPrint"], shown["Subject"]) == ("AB", "/CN=a:b")


def test_the_fingerprint_is_the_one_of_openssl() -> None:
    pem = b"".join(self_signed(["x"]))
    asked = ["openssl", "x509", "-noout", "-fingerprint", "-sha1"]
    shown = subprocess.run(asked, input=pem, capture_output=True, check=True).stdout.decode()
    assert fingerprint(pem) == shown.strip().partition("=")[2].replace(":", "")
    assert fingerprint(b"no certificate") == ""


def test_a_process_starts_with_its_servers_and_knows_its_configuration() -> None:
    wanted = configuration(backends={"d.web": (A, DRAINED)}, files={"page": b"text"})
    found = {name: text.decode() for name, text in files(wanted, Identity("haproxy", "/empty"), "7").items()}
    assert found["hosts.map"] == "a d.web\n"
    assert found["tls.list"] == "x.pem x.org\n"
    assert (found["page"], found["x.pem"]) == ("text", "one")
    assert "    server s1 10.0.0.1:80 weight 1\n    server s2 10.0.0.2:80 weight 0\n" in found["haproxy.cfg"]
    for line in (f"description {digest(wanted)}", "user haproxy", "chroot /empty", "unix@haproxy-7.sock"):
        assert line in found["process.cfg"]
    assert "user" not in files(wanted, Identity(), "7")["process.cfg"].decode()
    # Without a reload, HAProxy has neither another file nor another page.
    assert digest(wanted) == digest(replace(wanted, backends={}, maps={}))
    assert len({digest(each) for each in (wanted, replace(wanted, files={}), replace(wanted, head=""))}) == 3


SAID = """\
[NOTICE]   (12) : haproxy version is 2.6.12
[ALERT]    (12) : config : parsing [haproxy.cfg:8] : unknown keyword 'bad' in 'frontend' section
[ALERT]    (12) : config : Fatal errors found in configuration.
"""


def test_a_complaint_names_the_object() -> None:
    expected = "parsing [haproxy.cfg:8] : unknown keyword 'bad' in 'frontend' section"
    assert complaint(SAID, HEAD) == f"{expected} (frontend f: Ingress default/web)"
    assert complaint(SAID.replace(":8]", ":5]"), HEAD) == f"{expected.replace(':8]', ':5]')} (frontend f)"
    assert complaint("no memory", HEAD) == "no memory"
    assert complaint("[ALERT]    (12) : cannot bind\n", HEAD) == "cannot bind"


def test_metrics_of_backends_in_use_are_joined_under_their_names() -> None:
    text = """\
# TYPE haproxy_backend_http_requests_total counter
haproxy_backend_http_requests_total{proxy="d.web"} 1
haproxy_backend_http_requests_total{proxy="spare-1"} 2
haproxy_backend_http_requests_total{proxy="spare-2"} 0
# TYPE haproxy_backend_max_queue gauge
haproxy_backend_max_queue{proxy="d.web"} 3
haproxy_process_nbthread 2
"""
    assert joined(text, {"spare-1": "d.new"}).splitlines() == [
        "# TYPE haproxy_backend_http_requests_total counter",
        'haproxy_backend_http_requests_total{proxy="d.web"} 1',
        'haproxy_backend_http_requests_total{proxy="d.new"} 2',
        "haproxy_process_nbthread 2",
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "IP changed from '10.0.0.2' to '10.0.0.1', port changed from '1' to '80' by 'stats socket command'",
        "no need to change the addr, no need to change the port by 'stats socket command'",
        "nothing changed",
    ],
    ids=["another weight or state", "another address", "2.6: the same address", "3.0: the same address"],
)
def test_replies_to_an_address_of_a_server_are_expected(reply: str) -> None:
    (command,) = planned(configuration(backends={"d.web": (A, B, C)})).before
    assert re.fullmatch(command.reply, reply)
    assert not re.fullmatch(command.reply, "No such server.")
