"""The clock that the fleet shares."""

from datetime import UTC, datetime, timedelta

from infra.clock import ServerClock

NOON = datetime(2031, 4, 1, 12, tzinfo=UTC)
_SOON = timedelta(minutes=1)


def test_the_machines_clock_serves_until_the_server_answers() -> None:
    """A process knows about what time it is before it has reached the server, and asks at its first chance."""
    clock = ServerClock()
    assert clock.stale
    assert abs(clock.now() - datetime.now(UTC)) < _SOON


def test_a_machine_with_a_wrong_clock_goes_by_the_servers() -> None:
    """What the server answered goes on by itself, however the machine's clock stands."""
    clock = ServerClock()
    clock.learn(NOON)
    assert not clock.stale
    first, second = clock.now(), clock.now()
    assert NOON <= first <= second < NOON + _SOON
