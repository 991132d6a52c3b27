"""When lists are requested as streams, and for how long they may take."""

from __future__ import annotations

from kproxy.limits import API_STREAM_IDLE_SECONDS, API_STREAM_SECONDS
from kproxy.sources.cluster.core.streamed import PAGES_SECONDS, StreamedList, Streams


def test_a_refusal_lasts_for_some_time() -> None:
    streams = Streams()
    assert streams.wanted(0)
    streams.refused(100)
    assert not streams.wanted(100 + PAGES_SECONDS - 1)
    assert streams.wanted(100 + PAGES_SECONDS)


def test_two_breaks_in_a_row_are_a_refusal() -> None:
    streams = Streams()
    streams.broke(1)
    assert streams.wanted(1)
    streams.complete()
    streams.broke(2)
    assert streams.wanted(2)
    streams.broke(3)
    assert not streams.wanted(3)
    streams.broke(3 + PAGES_SECONDS)
    assert streams.wanted(3 + PAGES_SECONDS)


def test_a_list_has_a_limit_for_pauses_and_one_for_all_of_it() -> None:
    streamed = StreamedList(begun=100)
    assert streamed.deadline(100) == 100 + API_STREAM_IDLE_SECONDS
    assert streamed.deadline(105) == 105 + API_STREAM_IDLE_SECONDS
    assert streamed.deadline(100 + API_STREAM_SECONDS - 1) == 100 + API_STREAM_SECONDS
