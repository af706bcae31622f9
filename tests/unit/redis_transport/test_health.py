"""Health without I/O."""

from streams.redis.health import Health


def test_a_loop_that_stands_still_is_a_problem() -> None:
    """A loop that shows no sign of life for longer than it may is reported, and clears when it lives again."""
    health = Health()
    health.expect("fetching", -1.0)
    [problem] = health.problems()
    assert problem.startswith("fetching stands still")
    health.expect("fetching", 60.0)
    assert health.problems() == []


def test_a_failing_loop_says_why() -> None:
    """A failure is reported with its error until the loop succeeds."""
    health = Health()
    health.expect("lease renewal", 60.0)
    health.failing("lease renewal", ConnectionError("refused"))
    assert health.problems() == ["lease renewal fails: ConnectionError: refused"]
    health.alive("lease renewal")
    assert health.problems() == []
