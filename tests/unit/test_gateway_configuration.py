"""The parts of HAProxy's configuration: slots for servers, and spare backends for new Services."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kproxy.gateway.core.configuration import (
    Configuration,
    Section,
    Server,
    State,
    fitted,
    slots_for,
    spare_names,
    with_servers,
)

WEB, API = "default.web.80", "default.api.80"
SERVERS = (Server("10.0.0.1", 8080), Server("fd00::1", 8080, 7))
TLS = Section(4, ("http-request deny if TRUE",), "ssl verify none")
PLAIN = Section(4)


def configuration(sections: dict[str, Section], *used: str, spares: int = 0) -> Configuration:
    spare = {f"spare-{number}": PLAIN for number in range(1, spares + 1)}
    return Configuration(
        "defaults\n    mode http\n",
        sections | spare,
        dict.fromkeys(sorted(used or sections), SERVERS),
        {"paths.map": tuple((f"http/{name}/", name) for name in used or sections)},
    )


def test_the_text_has_slots_and_no_endpoint() -> None:
    text = configuration({WEB: TLS}, spares=1).text
    assert text == (
        "defaults\n    mode http\n\nbackend default.web.80\n    http-request deny if TRUE\n"
        "    server-template s 1-4 0.0.0.0:1 disabled ssl verify none\n"
        "\nbackend spare-1\n    server-template s 1-4 0.0.0.0:1 disabled\n"
    )


def test_slots_are_filled_for_the_start() -> None:
    text = configuration({WEB: TLS, API: PLAIN}).text
    draining = Server("10.0.0.9", 80, 3, State.DRAIN)
    filled = with_servers(text, {WEB: (SERVERS[0], None, SERVERS[1], draining)})
    assert [line.strip() for line in filled.splitlines() if " server " in line][:5] == [
        "server s1 10.0.0.1:8080 weight 1 ssl verify none",
        "server s2 0.0.0.0:1 disabled ssl verify none",
        "server s3 [fd00::1]:8080 weight 7 ssl verify none",
        "server s4 10.0.0.9:80 weight 0 ssl verify none",
        "server s1 0.0.0.0:1 disabled",
    ]
    assert "server-template" not in filled
    assert filled.replace(" ssl verify none", "").count("0.0.0.0:1 disabled\n") == 5


@pytest.mark.parametrize(
    ("servers", "slots"), [(0, 4), (1, 4), (2, 4), (3, 8), (4, 8), (5, 16), (8, 16), (1000, 2048)]
)
def test_a_backend_has_room_for_twice_as_many_servers(servers: int, slots: int) -> None:
    assert slots_for(servers) == slots


def test_a_new_plain_backend_takes_a_spare_one() -> None:
    loaded = configuration({WEB: PLAIN}, spares=2)
    found = fitted(configuration({API: PLAIN, WEB: PLAIN}, spares=2), loaded)
    assert found is not None
    assert found.text == loaded.text
    assert found.backends == {WEB: SERVERS, "spare-1": SERVERS}
    assert found.maps == {"paths.map": ((f"http/{API}/", "spare-1"), (f"http/{WEB}/", WEB))}


def test_a_backend_stays_in_its_spare_one_and_frees_it_at_its_end() -> None:
    loaded = configuration({WEB: PLAIN}, spares=2)
    both = fitted(configuration({WEB: PLAIN, API: PLAIN, "default.x.1": PLAIN}), loaded)
    assert both is not None
    assert both.spares == {API: "spare-1", "default.x.1": "spare-2"}
    one = fitted(configuration({"default.x.1": PLAIN}), both)
    assert one is not None
    assert one.spares == {"default.x.1": "spare-2"}
    assert one.text == loaded.text
    other = fitted(configuration({"default.x.1": PLAIN, "default.y.1": PLAIN}), one)
    assert other is not None
    assert other.spares == {"default.x.1": "spare-2", "default.y.1": "spare-1"}


def grown(servers: int = 5) -> Configuration:
    """A configuration with so many servers, and room for more."""
    many = tuple(Server(f"10.0.0.{number}", 80) for number in range(servers))
    return replace(configuration({WEB: Section(slots_for(servers))}), backends={WEB: many})


@pytest.mark.parametrize(
    "wanted",
    [
        configuration({WEB: PLAIN, API: TLS}),
        configuration({WEB: TLS}),
        grown(),
        configuration({WEB: PLAIN, API: PLAIN, "default.x.1": PLAIN}),
        replace(configuration({WEB: PLAIN}), head="defaults\n"),
        replace(configuration({WEB: PLAIN}), files={"404.html": b"No"}),
    ],
)
def test_what_needs_another_text_does_not_fit(wanted: Configuration) -> None:
    loaded = configuration({WEB: PLAIN}, spares=1)
    assert fitted(configuration({WEB: PLAIN}), loaded) is not None
    assert fitted(wanted, loaded) is None


def test_a_backend_that_grew_moves_to_a_larger_spare_one() -> None:
    loaded = replace(configuration({WEB: PLAIN}), sections={WEB: PLAIN, "spare-1": Section(16)})
    found = fitted(grown(), loaded)
    assert found is not None
    assert found.spares == {WEB: "spare-1"}


def test_a_backend_that_grew_stays_as_long_as_it_has_slots() -> None:
    loaded = replace(configuration({WEB: PLAIN}), sections={WEB: PLAIN, "spare-1": Section(16)})
    found = fitted(grown(servers=PLAIN.slots), loaded)
    assert found is not None
    assert found.spares == {}


def test_spare_backends_are_found_by_their_names() -> None:
    sections = dict.fromkeys(("spare-10", "spare-2.web.80", "spare-2", WEB), PLAIN)
    assert spare_names(Configuration("", sections)) == ["spare-2", "spare-10"]
