"""What an endpoint's headers say about when to come back."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from consumers.generation.rate_limits import exhausted_for, retry_after


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, timedelta(seconds=7)),
        ({"retry-after": "0.5"}, timedelta(seconds=0.5)),
        ({"retry-after-ms": "250", "retry-after": "1"}, timedelta(milliseconds=250)),
        ({"retry-after": "-3"}, timedelta()),
        ({"retry-after": "1e300"}, timedelta(days=1)),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers: dict[str, str], wait: timedelta | None) -> None:
    """Milliseconds come before seconds; nonsense counts as nothing said."""
    assert retry_after(headers) == wait


def test_retry_after_may_be_a_date() -> None:
    """HTTP allows a date in place of seconds."""
    wait = retry_after({"retry-after": format_datetime(datetime.now(UTC) + timedelta(minutes=1), usegmt=True)})
    assert wait is not None
    assert timedelta(seconds=50) < wait <= timedelta(seconds=60)


@pytest.mark.parametrize(
    ("reset", "wait"),
    [
        ("20ms", timedelta(milliseconds=20)),
        ("1s", timedelta(seconds=1)),
        ("6m0s", timedelta(minutes=6)),
        ("1m30.5s", timedelta(seconds=90.5)),
        ("2h3m", timedelta(minutes=123)),
        ("999h", timedelta(days=1)),
        ("0s", None),
        ("1735689600", None),
        ("2026-01-01T00:00:00Z", None),
        ("s", None),
        ("", None),
    ],
)
def test_a_used_up_limit_says_when_it_is_reset(reset: str, wait: timedelta | None) -> None:
    """Durations carry their units; a bare number may be a point in time and counts as nothing said."""
    assert exhausted_for({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}) == wait


def test_the_limit_that_lasts_longest_decides() -> None:
    """Requests and tokens are limited apart; what is left of one does not help where the other is used up."""
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "9s",
    }
    assert exhausted_for(headers) == timedelta(seconds=9)
    assert exhausted_for(headers | {"x-ratelimit-remaining-tokens": "17"}) == timedelta(seconds=1)
    assert (
        exhausted_for({**headers, "x-ratelimit-remaining-requests": "5", "x-ratelimit-remaining-tokens": "1"}) is None
    )
