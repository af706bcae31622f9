"""What an endpoint's headers say about when to come back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.generation.rate_limits import exhausted_for, named_reset, retry_after, spoken_wait


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7"}, timedelta(seconds=7)),
        ({"retry-after": "0.5"}, timedelta(seconds=0.5)),
        ({"retry-after-ms": "250", "retry-after": "1"}, timedelta(milliseconds=250)),
        ({"retry-after": "-3"}, timedelta()),
        ({"retry-after": "1e300"}, timedelta(hours=1)),
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
        ("1m2s3ms", timedelta(seconds=62.003)),
        ("2h3m", timedelta(hours=1)),
        ("5", timedelta(seconds=5)),
        ("999h", timedelta(hours=1)),
        ("0s", None),
        ("1735689600", None),
        ("2026-01-01T00:00:00Z", None),
        ("s", None),
        ("", None),
    ],
)
def test_a_used_up_limit_says_when_it_is_reset(reset: str, wait: timedelta | None) -> None:
    """Durations carry units or are seconds; a large number or a date is a point in time, here one that is past."""
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


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        ('"default";r=0;t=30', 30),
        ('"burst";r=0;t=3, "daily";r=0;t=90', 90),
        ('"burst";r=0;t=3, "daily";r=7;t=90', 3),
        ('"default";r=1;t=30', None),
        ("limit=10, remaining=0, reset=5", 5),
        ("limit=10, remaining=1, reset=5", None),
        ('"default";r=0', None),
        ("default; r=0; t=30", 30),
        ("r=0, t=30", None),
    ],
)
def test_a_limit_may_be_used_up_in_one_header(stated: str, seconds: float | None) -> None:
    """As the IETF has it, in an answer and in a 429."""
    wait = None if seconds is None else timedelta(seconds=seconds)
    assert exhausted_for({"ratelimit": stated}) == named_reset({"ratelimit": stated}) == wait


_WAYS: list[Callable[[float], str]] = [
    str,
    lambda at: str(int(at * 1000)),
    lambda at: str(int(at * 1e6)),
    lambda at: str(int(at * 1e9)),
    lambda at: datetime.fromtimestamp(at, UTC).isoformat(),
    lambda at: f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC",
    lambda at: f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S.%f}000 +0000 UTC m=+1.5",
    lambda at: f"{datetime.fromtimestamp(at, UTC):%Y-%b-%d %H:%M:%S}+0000 UTC",
    lambda at: f"{datetime.fromtimestamp(at + 7_200, UTC):%a, %d %b %Y %H:%M:%S} +0200",
    lambda at: f"{datetime.fromtimestamp(at, UTC):%A, %d-%b-%y %H:%M:%S} GMT",
    lambda at: f"{datetime.fromtimestamp(at, UTC):%a %b %d %H:%M:%S %Y}",
]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"x-retry-after": "7"}, 7),
        ({"x-ratelimit-retry-after": "7s"}, 7),
        ({"x-ms-retry-after-ms": "700"}, 0.7),
        ({"x-retry-after-ms": "700", "retry-after": "1"}, 0.7),
        ({"retry-after-ms": "1500ms"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "4"}, 4),
    ],
)
def test_a_wait_may_stand_under_another_name(header: dict[str, str], seconds: float) -> None:
    """Gateways name the same thing in their own way."""
    assert retry_after(header) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({"ratelimit": "limit=10, remaining=0, reset=5"}, 5),
        ({"ratelimit": '"default";r=0;t=30'}, 30),
        ({"ratelimit": "soon"}, None),
        ({"ratelimit-reset": "5"}, 5),
        ({"x-ratelimit-reset-after": "5"}, 5),
        ({"x-rate-limit-reset": "5"}, 5),
        ({"x-ratelimit-reset-ms": "500"}, 0.5),
        ({"x-ratelimit-reset-ms": "n/a"}, None),
    ],
)
def test_a_reset_may_stand_under_another_name(header: dict[str, str], seconds: float | None) -> None:
    """The drafts of the IETF, and what servers made of them."""
    assert named_reset(header) == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize("ahead", [timedelta(seconds=30), timedelta(minutes=5)])
@pytest.mark.parametrize("write", _WAYS)
def test_a_reset_may_be_a_point_in_time(ahead: timedelta, write: Callable[[float], str]) -> None:
    """Seconds or milliseconds since 1970, and ISO times, say when and not for how long."""
    at = (datetime.now(UTC) + ahead).timestamp()
    wait = named_reset({"x-ratelimit-reset": write(at)})
    assert wait is not None
    assert ahead - timedelta(seconds=5) < wait <= ahead


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Please try again in 1.2s. Visit our site", 1.2),
        ("Please retry in 45.8s.", 45.8),
        ("Please retry after 2 seconds.", 2),
        ("try again in 6m0s", 360),
        ("Please try again in 88ms.", 0.088),
        ("Please wait 3600 seconds before retrying.", 3600),
        ("Expected available in 1 second.", 1),
        ("Please retry in about 20 seconds.", 20),
        ("Your limit will reset in 10 s", 10),
        ("Your limit resets after 5 minutes", 300),
        ("cooldown of 30 s", 30),
        ("cooling down for 30 seconds", 30),
        ("Please try again in 1 minute and 5 seconds", 65),
        ("Out of call volume quota. Quota will be replenished in 00:10:00.", 600),
        ("Limit resets at: 2096-04-01 12:00:00 UTC", 3_600),
        ("请求过于频繁, 请在 5 秒后重试", 5),
        ("请 2 分钟后再试", 120),
        ("Rate limit of 10 per 60s exceeded", None),
        ("try again in a few seconds", None),
        ("try again later", None),
        ("Your limit resets at 3pm", None),
    ],
)
def test_a_wait_may_stand_in_a_sentence(words: str, seconds: float | None) -> None:
    """Where no header names a wait, the message of a 429 may."""
    assert spoken_wait(words) == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        *[
            (text, 5)
            for text in ("5", " 5 ", "5.0", "+5", "5.", '"5"', "'5'", "5s", "5 s", "5S", "5 Seconds", "5 sec.")
        ],
        *[(text, 90) for text in ("1m30s", "1m 30s", "1M30S", "PT1M30S", "pt90s", "90000ms", "1.5 minutes", "30, 90")],
        *[(text, 3_600) for text in ("1d", "1 day", "P1D", "P1DT1H", "PT2H", "3601")],
        *[(text, 0) for text in ("0", "-1", "PT0S")],
        *[
            (text, None)
            for text in ("", "P", "PT", "five", "0x10", "1_000", "inf", "nan", "5;x", "00:01:30", "soon, 5")
        ],
    ],
)
def test_a_wait_in_any_spelling_is_read(written: str, seconds: float | None) -> None:
    """Seconds, units in any case, ISO durations, quoted or sent twice, the longest then; what is none says nothing."""
    assert retry_after({"retry-after": written}) == (None if seconds is None else timedelta(seconds=seconds))


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-remaining"]),
        st.text(max_size=40)
        | st.floats().map(str)
        | st.integers().map(str)
        | st.datetimes().map(lambda at: format_datetime(at.replace(tzinfo=UTC), usegmt=True))
        | st.datetimes(timezones=st.timezones()).map(str)
        | st.sampled_from(
            ["inf", "nan", "1e999", "Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359"]
        ),
    )
)
def test_whatever_a_header_holds_a_wait_is_bounded(headers: dict[str, str]) -> None:
    """No value raises, waits are never negative, and never longer than an hour. One date used to raise."""
    for wait in (retry_after(headers), exhausted_for(headers), named_reset(headers)):
        assert wait is None or timedelta() <= wait <= timedelta(hours=1)
