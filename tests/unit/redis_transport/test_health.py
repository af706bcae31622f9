"""Health without I/O."""

from streams.redis.health import Health
from tests.stepped_clock import Clock


def test_a_loop_that_stands_still_is_a_problem(clock: Clock) -> None:
    """A loop that shows no sign of life for longer than it may is reported, and clears when it lives again."""
    health = Health(clock)
    health.expect("fetching", 7.0)
    clock.now += 7.0
    assert health.problems() == []
    clock.now += 1.0
    assert health.problems() == ["fetching stands still for 8 s"]
    health.alive("fetching")
    assert health.problems() == []


def test_a_failing_loop_says_why(clock: Clock) -> None:
    """A failure is reported with its error until the loop succeeds, however long that takes."""
    health = Health(clock)
    health.expect("lease renewal", 60.0)
    health.failing("lease renewal", ConnectionError("refused"))
    clock.now += 600.0
    assert health.problems() == ["lease renewal fails: ConnectionError: refused"]
    health.alive("lease renewal")
    assert health.problems() == []


def test_a_loop_that_has_ended_is_no_problem(clock: Clock) -> None:
    """Nobody waits for a sign of life of a loop that ended as it should."""
    health = Health(clock)
    health.expect("fetching", 7.0)
    health.failing("fetching", ConnectionError("refused"))
    health.forget("fetching")
    clock.now += 60.0
    assert health.problems() == []
