"""Whether a table counts connections by endpoint, as rows: the maximum, whether it does now, and its size."""

from __future__ import annotations

from kproxy.table.layout import counts_endpoints
from tests.cases import cases


@cases(
    """
    maximum  now  endpoints  then
    -        yes  1000000    yes
    0        yes  0          no
    0        no   0          no
    4        yes  4          yes
    4        yes  5          no
    4        no   3          no
    4        no   2          yes
    """
)
def test_counts_endpoints(maximum: str, now: str, endpoints: str, then: str) -> None:
    limit = int(maximum) if maximum else None
    assert counts_endpoints(int(endpoints), limit, now == "yes") == (then == "yes")
