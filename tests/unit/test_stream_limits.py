"""How many event streams an organization may open."""

from contextlib import suppress
from datetime import timedelta

from infra.api.limits import StreamLimits
from infra.errors import Refused


class Watch:
    """A clock that stands."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusal(limits: StreamLimits, organization: str) -> str | None:
    """Try to open a stream; return after how many seconds to come back, or None."""
    try:
        limits.admit(organization)
    except Refused as refused:
        return f"{(refused.retry_after or timedelta()).total_seconds():.0f}"
    return None


def test_opening_fast_is_refused_until_the_time_that_the_answer_says() -> None:
    """A burst is taken, then as many a second as the rate allows; another organization is not concerned."""
    watch = Watch()
    limits = StreamLimits(per_second=0.5, burst=3, clock=watch)
    assert [refusal(limits, "acme") for _ in range(5)] == [None, None, None, "2", "2"]
    assert refusal(limits, "birch") is None
    watch.now = 2.0
    assert [refusal(limits, "acme") for _ in range(2)] == [None, "2"]
    watch.now = 1_000.0
    assert [refusal(limits, "acme") for _ in range(4)] == [None, None, None, "2"]


def test_no_more_are_open_than_the_limit() -> None:
    """One that ends makes room for another, however it ends."""
    limits = StreamLimits(at_once=1)
    with suppress(ConnectionError), limits.held("acme"):
        assert refusal(limits, "acme") == "5"
        assert refusal(limits, "birch") is None
        raise ConnectionError
    assert refusal(limits, "acme") is None


def test_organizations_that_open_nothing_any_more_are_forgotten() -> None:
    """Memory does not grow with the number of organizations that were ever seen."""
    watch = Watch()
    limits = StreamLimits(clock=watch)
    for number in range(3_000):
        watch.now += 1
        assert refusal(limits, f"org-{number}") is None
    assert len(limits._left) <= 1_002
