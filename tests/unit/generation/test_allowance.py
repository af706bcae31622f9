"""The limits that answers state: believed by the minute only, and never to the fleet's harm."""

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
        (("500;w=60", 499, "120ms"), None),
        (("inf", 1, "60s"), None),
    ],
)
def test_a_limit_is_by_the_minute_or_is_not_believed(
    stated: tuple[object, object, object], limit: float | None
) -> None:
    """What is left, and when it is whole again, tell the unit that no header has."""
    assert stated_limits(headers(*stated)) == Limits(requests=limit)
    assert stated_limits(headers(*stated, what="tokens")) == Limits(tokens=limit)


@given(st.dictionaries(st.sampled_from(list(headers(1, 1, 1)) + list(headers(1, 1, 1, "tokens"))), st.text()))
def test_no_headers_raise(stated: dict[str, str]) -> None:
    """Whatever stands in them."""
    limits = stated_limits(stated)
    assert limits.requests is None or limits.requests >= 1
    assert Allowance().answered(stated, 0.0) is None or "remaining" in str(stated)


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
