"""The table "How a stage fails"."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import DependencyDown, InvalidEvent, Permanent, Postponed, Transient
from streams.delivery.deliveries import ATTEMPT, DeadLetter, Delivery, Hold, RetryLater
from streams.delivery.policy import RetryPolicy, error_code

POLICY = RetryPolicy(max_attempts=3, base=timedelta(seconds=2), cap=timedelta(minutes=5))


@pytest.mark.parametrize(
    ("error", "attempt", "expected"),
    [
        (Transient("c", "m"), 1, RetryLater),
        (Transient("c", "m"), 2, RetryLater),
        (Transient("c", "m"), 3, DeadLetter),
        (TimeoutError(), 1, RetryLater),
        (TimeoutError(), 3, DeadLetter),
        (Postponed("m", delay=timedelta(seconds=9)), 99, RetryLater),
        (Permanent("c", "m"), 1, DeadLetter),
        (InvalidEvent("m"), 1, DeadLetter),
        (RuntimeError("a bug"), 1, DeadLetter),
        (DependencyDown("llm", "m"), 99, Hold),
    ],
)
def test_the_class_of_an_error_decides(error: Exception, attempt: int, expected: type) -> None:
    """Each class of error has one treatment."""
    delivery = Delivery("t", None, None, {ATTEMPT: str(attempt).encode()})
    assert isinstance(POLICY.outcome(error, delivery), expected)


@given(attempt=st.integers(1, 10**5), retry_after=st.none() | st.timedeltas(timedelta(), timedelta(days=1)))
def test_delays_are_bounded_and_never_before_retry_after(attempt: int, retry_after: timedelta | None) -> None:
    """However many attempts there were, the delay neither overflows nor undercuts what the other side asked for."""
    delay = POLICY.delay(attempt, retry_after)
    assert timedelta(seconds=1) <= delay <= max(POLICY.cap * 1.5, retry_after or timedelta())
    assert delay >= (retry_after or timedelta())


@pytest.mark.parametrize("text", [b"", b"-1", b"x", b"1" * 5000, "²".encode()])
def test_an_attempt_that_is_no_number_counts_as_the_first(text: bytes) -> None:
    """A header written by hand cannot take the stage down."""
    assert Delivery("t", None, None, {ATTEMPT: text}).attempt == 1


def test_a_bug_is_an_internal_error_to_the_customer() -> None:
    """Codes are stable; what a bug says is not for the customer."""
    assert error_code(Transient("llm_timeout", "m")) == "llm_timeout"
    assert error_code(TimeoutError()) == "timeout"
    assert error_code(KeyError("secret")) == "internal_error"
