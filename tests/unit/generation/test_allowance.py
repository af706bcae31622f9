"""The limits that answers state: believed by the minute only, and never to the fleet's harm."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.generation.allowance import Allowance, Limits, stated_limits


def headers(limit: object, left: object, whole_in: object, what: str = "requests") -> dict[str, str]:
    """Return what an answer states."""
    names = {"limit": limit, "remaining": left, "reset": whole_in}
    return {f"x-ratelimit-{name}-{what}": str(value) for name, value in names.items() if value is not None}


@pytest.mark.parametrize(
    ("stated", "limit"),
    [
        ((500, 499, "120ms"), 500),  # OpenAI
        ((10_000, 9_999, "6ms"), 10_000),
        ((60, 30, "30s"), 60),
        ((14_400, 14_370, "2m59.56s"), None),  # Groq: by the day
        ((10, 9, "100ms"), None),  # by the second
        ((500, 500, "0s"), None),
        ((500, 0, "60s"), None),
        ((500, -1, "60s"), None),
        ((-1, -1, "60s"), None),
        ((0, 0, "60s"), None),
        ((500, 499, None), None),
        ((500, None, "120ms"), None),
        (("500;w=60", 499, None), 500),  # in words
        (("500;w=3600", 499, "120ms"), None),
        (("500, 500;w=60, 9000;w=86400", 499, "40s"), 500),
        (("9000, 500;w=60, 9000;w=86400", 499, "40s"), None),
        (("500;w=60", 0, "60s"), None),
        (("500;w=60", -1, None), None),
        (("500;w=60", 501, None), None),
        (("0;w=60", 0, None), None),
        (("500;w=x", 499, None), None),
        (("inf", 1, "60s"), None),
    ],
)
def test_a_limit_is_by_the_minute_or_is_not_believed(
    stated: tuple[object, object, object], limit: float | None
) -> None:
    """What is left, and when it is whole again, tell the unit that no header has."""
    assert stated_limits(headers(*stated)) == Limits(requests=limit)
    assert stated_limits(headers(*stated, what="tokens")) == Limits(tokens=limit)


_DIALECTS: list[tuple[str, dict[str, str], Limits]] = [
    ("GitHub", {**headers(15, 14, None), "x-ratelimit-renewalperiod-requests": "60"}, Limits(requests=15)),
    ("by the day", {**headers(150, 149, None), "x-ratelimit-renewalperiod-requests": "86400"}, Limits()),
    (
        "Cerebras",
        {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-remaining-requests-day": "14399",
            "x-ratelimit-reset-requests-day": "33011.4",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-tokens-minute": "59000",
            "x-ratelimit-reset-tokens-minute": "11.4",
        },
        Limits(tokens=60_000),
    ),
    (
        "Mistral",
        {
            "x-ratelimit-limit-req-minute": "60",
            "x-ratelimit-remaining-req-minute": "59",
            "x-ratelimit-limit-tokens-minute": "500000",
            "x-ratelimit-remaining-tokens-minute": "499000",
            "x-ratelimit-limit-tokens-month": "1000000000",
            "x-ratelimit-remaining-tokens-month": "999000000",
        },
        Limits(60, 500_000),
    ),
    (
        "Mistral, of old",
        {"x-ratelimitbysize-limit-minute": "500000", "x-ratelimitbysize-remaining-minute": "499900"},
        Limits(tokens=500_000),
    ),
    (
        "Anthropic",
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "25",
            "anthropic-ratelimit-requests-reset": "30",
            "anthropic-ratelimit-tokens-limit": "40000",
            "anthropic-ratelimit-tokens-remaining": "20000",
            "anthropic-ratelimit-tokens-reset": "30s",
        },
        Limits(50, 40_000),
    ),
    (
        "Groq",
        {**headers(14_400, 14_370, "2m59.56s"), **headers(18_000, 17_700, "1s", "tokens")},
        Limits(tokens=18_000),
    ),
    ("a gateway", {"x-ratelimit-limit": "600", "x-ratelimit-remaining": "300", "x-ratelimit-reset": "30"}, Limits(600)),
    (
        "a gateway by the second",
        {"x-ratelimit-limit": "10", "x-ratelimit-remaining": "5", "x-ratelimit-reset": "1"},
        Limits(),
    ),
    (
        "Together",
        {"x-tokenlimit-limit": "60000", "x-tokenlimit-remaining": "30000", "x-tokenlimit-reset": "30"},
        Limits(tokens=60_000),
    ),
    ("IETF, of old", {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "50"}, Limits(requests=100)),
    (
        "IETF, with a policy",
        {"ratelimit-limit": "100", "ratelimit-remaining": "50", "ratelimit-policy": "100;w=60, 5000;w=86400"},
        Limits(requests=100),
    ),
    (
        "IETF",
        {"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60, "daily";q=1000;w=86400'},
        Limits(requests=100),
    ),
    (
        "IETF, of tokens",
        {
            "ratelimit": '"requests";r=599;t=1, "tokens";r=100;t=7',
            "ratelimit-policy": '"requests";q=600;w=60;qu="requests", "tokens";q=60000;w=60;qu="tokens"',
        },
        Limits(600, 60_000),
    ),
    (
        "IETF, nothing left",
        {"ratelimit": '"default";r=0;t=30', "ratelimit-policy": '"default";q=100;w=60'},
        Limits(),
    ),
    ("IETF, in between", {"ratelimit": "limit=100, remaining=50, reset=30"}, Limits(100)),
    (
        "IETF, in between",
        {"ratelimit": "limit=100, remaining=99, reset=30", "ratelimit-policy": "100;w=60"},
        Limits(100),
    ),
    ("IETF, by the hour", {"ratelimit": '"p";r=50;t=30', "ratelimit-policy": '"p";q=100;w=3600'}, Limits()),
]


@pytest.mark.parametrize(("stated", "limits"), [one[1:] for one in _DIALECTS], ids=[one[0] for one in _DIALECTS])
def test_limits_are_read_in_the_dialects_of_providers(stated: dict[str, str], limits: Limits) -> None:
    """Where a header names its unit, that counts; a limit by the day or the second is none by the minute."""
    assert stated_limits(stated) == limits
    allowance = Allowance(clock=lambda: 0.0)
    for _ in range(3):
        allowance.answered(stated, 0.0)
    assert allowance.limits == limits


def test_each_kind_of_limit_is_learned_by_itself() -> None:
    """An answer that rounds one so that it tells nothing makes the other no less known, and forgets none."""
    allowance = Allowance(clock=lambda: 0.0)
    for whole_in in ("1s", "6s", "1s", "6s"):
        allowance.answered({**headers(600, 540, whole_in), **headers(60_000, 30_000, "30s", "tokens")}, 0.0)
    assert allowance.limits == Limits(tokens=60_000)
    for _ in range(3):
        allowance.answered(headers(600, 540, "6s"), 0.0)
    assert allowance.limits == Limits(600, 60_000)


@pytest.mark.parametrize("limit", [20, 60, 600, 3_000])
@pytest.mark.parametrize("begins_s", [0.0, 17.0, 59.0])
@pytest.mark.parametrize("whole_seconds", [True, False])
def test_a_minute_that_begins_anew_is_learned(limit: int, begins_s: float, *, whole_seconds: bool) -> None:
    """All that is left comes back at once, at the same end for all answers of a window."""
    allowance = Allowance(clock=lambda: now)
    for second in range(0, 150, max(1, 120 // limit)):
        now = begins_s + second
        into = now % 60
        left = limit - max(1, round(limit * into / 70))
        reset = 60 - into
        allowance.answered(headers(limit, left, f"{reset:.0f}" if whole_seconds else f"{reset:.3f}s"), now)
    assert allowance.limits == Limits(requests=limit)


@pytest.mark.parametrize("window_s", [1, 10, 30, 3_600, 86_400])
@pytest.mark.parametrize("begins_s", [0.0, 17.0])
def test_a_window_of_another_length_is_not_taken_for_a_minute(window_s: int, begins_s: float) -> None:
    """Shorter, the fleet would be slower than it may; longer, faster."""
    allowance = Allowance(clock=lambda: now)
    for step in range(1_200):
        now = begins_s + step / 4
        into = now % window_s
        left = 1_000 - max(1, round(900 * into / window_s))
        allowance.answered(headers(1_000, left, f"{window_s - into:.3f}s"), now)
    assert not allowance.limits.is_known


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
@pytest.mark.parametrize(
    "state",
    [
        lambda limit: {"x-ratelimit-limit-requests-minute": str(limit), "x-ratelimit-remaining-requests-minute": "1"},
        lambda limit: {"ratelimit-policy": f'"a";q={limit};w=60', "ratelimit": '"a";r=1;t=60'},
        lambda limit: headers(limit, limit / 2, "30s"),
    ],
)
def test_a_stale_limit_does_not_shut_the_fleet(limit: int, state: Callable[[int], dict[str, str]]) -> None:
    """What answers more in a minute than it says it may is not believed; at the true limit it refuses, and is."""
    allowance = Allowance(clock=lambda: now)
    for step in range(40):
        now = step / 4
        allowance.answered(state(limit), now)
    assert not allowance.limits.is_known
    allowance = Allowance(clock=lambda: now)
    for step in range(40):
        now = step * 60 / limit
        allowance.answered(state(limit), now)
    assert allowance.limits == Limits(requests=limit)


@pytest.mark.parametrize(("limit", "believed"), [(5, False), (1_000, False), (5_000, False), (30_000, True)])
def test_a_limit_of_tokens_that_calls_are_beyond_is_stale(limit: int, *, believed: bool) -> None:
    """A call of 800 tokens that is answered shows that a limit of 5 is none."""
    allowance = Allowance(clock=lambda: now)
    for step in range(20):
        now = step / 4
        allowance.answered(headers(limit, limit * 0.8, "12s", "tokens"), now)
        allowance.used(800)
    assert allowance.limits.is_known is believed


_ALL_NAMES = sorted({name for _, stated, _ in _DIALECTS for name in stated} | set(headers(1, 1, 1)))
_ODD = st.text() | st.sampled_from(
    ["-1", "0", "1e400", "nan", "1;w=60", '"a";q=1;w=60', '"a";r=0;t=9e99', ";", '"";;=', "1,"]
)


@given(st.dictionaries(st.sampled_from(_ALL_NAMES), _ODD))
def test_no_headers_raise(stated: dict[str, str]) -> None:
    """Whatever stands in them."""
    limits = stated_limits(stated)
    assert limits.requests is None or limits.requests >= 1
    assert Allowance().answered(stated, 0.0) is None or "remaining" in str(stated) or "ratelimit" in stated


def test_answers_have_to_agree() -> None:
    """One alone may be a mistake."""
    allowance = Allowance()
    for _ in range(2):
        allowance.answered(headers(500, 499, "120ms"), 0.0)
        assert not allowance.limits.is_known
    allowance.answered(headers(500, 499, "120ms"), 0.0)
    assert allowance.limits == Limits(requests=500)
    allowance.answered({}, 0.0)
    assert allowance.limits == Limits(requests=500)


def test_nothing_left_is_believed_three_times_and_again_after_a_429() -> None:
    """Calls that were under way together count once; an answer with something left begins anew."""
    now = 0.0
    allowance = Allowance(clock=lambda: now)
    empty, full = headers(60, 0, "1s"), headers(60, 59, "1s")
    for now in (1.0, 2.0, 3.0):
        for _ in range(5):
            assert allowance.answered(empty, now - 0.5) is not None
    now = 4.0
    assert allowance.answered(empty, 3.5) is None
    allowance.refused()
    assert allowance.answered(empty, 4.5) is not None
    assert allowance.answered(full, 5.0) is None


def test_settings_come_before_what_answers_state() -> None:
    """Each limit by itself."""
    assert Limits(requests=5).or_else(Limits(6, 7)) == Limits(5, 7)
