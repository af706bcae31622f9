"""What one process knows of the gate."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from consumers.generation.gate import Gate
from infra.errors import DependencyDown


@dataclass
class Seconds:
    """A clock that stands until it is moved."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


def wait_of(gate: Gate) -> float:
    """Return how long the gate asks to wait; 0 when it is open."""
    try:
        gate.check()
    except DependencyDown as error:
        return (error.retry_after or timedelta()).total_seconds()
    return 0.0


@pytest.mark.parametrize(("wait_s", "spread_s"), [(0.5, 0.2), (20, 2), (29, 2.9)])
def test_a_closed_gate_sends_everybody_back_at_a_different_time(wait_s: float, spread_s: float) -> None:
    """Nobody comes before the time named, and the fleet comes over a while, not at once."""
    gate = Gate("e", Seconds())
    gate.close(timedelta(seconds=wait_s), "llm_rate_limited")
    waits = [wait_of(gate) for _ in range(200)]
    assert wait_s <= min(waits) < max(waits) <= wait_s + spread_s
    assert max(waits) - min(waits) > spread_s / 2


def test_a_long_wait_is_asked_about_every_half_minute() -> None:
    """Only an operator shortens it. Until it is time to ask, nobody does; what the fleet says then holds."""
    clock = Seconds()
    gate = Gate("e", clock)
    gate.learn(timedelta(hours=1))
    assert 30 <= wait_of(gate) <= 35
    with pytest.raises(DependencyDown):
        gate.check_known()
    clock.now += 30
    gate.check_known()
    gate.learn(timedelta(hours=1) - timedelta(seconds=30.001))
    assert wait_of(gate) >= 30
    clock.now += 30
    gate.check_known()
    gate.learn(None)
    assert wait_of(gate) == 0


def test_what_was_read_before_the_fleet_was_told_does_not_open_the_gate() -> None:
    """A begin under way may read "open" and hear of it after its own process has told of a closing."""
    clock = Seconds()
    gate = Gate("e", clock)
    clock.now += 100
    gate.close(timedelta(hours=1), "llm_rate_limited")
    gate.told(gate.untold())
    gate.learn(None)
    assert wait_of(gate) >= 30


def test_a_gate_that_an_operator_opens_is_open_at_once() -> None:
    """A process that hears of it asks at once; who waits for the last second, or knows better, keeps its own time."""
    clock = Seconds()
    gate = Gate("e", clock)
    assert not gate.open_early()
    gate.learn(timedelta(hours=1))
    assert gate.open_early()
    assert wait_of(gate) == 0
    assert not gate.open_early()
    gate.learn(timedelta(seconds=0.9))
    assert not gate.open_early()
    assert wait_of(gate) > 0
    gate.close(timedelta(hours=2), "llm_rate_limited")  # the fleet has not heard of it yet
    assert not gate.open_early()
    assert wait_of(gate) >= 30


def test_what_the_fleet_has_not_heard_it_cannot_take_back() -> None:
    """Its transaction failed: the gate stays closed for this process, however often it asks."""
    clock = Seconds()
    gate = Gate("e", clock)
    gate.close(timedelta(hours=1), "llm_rate_limited")
    clock.now += 40
    gate.learn(None)
    assert wait_of(gate) >= 30
    assert gate.untold() is not None


def test_the_gate_opens_when_its_time_comes() -> None:
    """Nothing has to happen for it."""
    clock = Seconds()
    gate = Gate("e", clock)
    gate.close(timedelta(seconds=3), "llm_rate_limited")
    clock.now += 3
    assert wait_of(gate) == 0


def test_an_earlier_time_does_not_open_it() -> None:
    """Calls in flight end in any order: the latest time that was named stands."""
    gate = Gate("e", Seconds())
    gate.close(timedelta(seconds=30), "llm_rate_limited")
    gate.close(timedelta(seconds=3), "llm_rate_limited")
    gate.close(None, "saved")
    gate.learn(timedelta(seconds=1))
    assert wait_of(gate) >= 30


def test_the_fleet_hears_of_a_closing_once() -> None:
    """What the fleet knows, or has told us, is not written again; what is longer is."""
    gate = Gate("e", Seconds())
    assert gate.untold() is None
    gate.learn(timedelta(seconds=5))
    assert gate.untold() is None
    gate.close(timedelta(seconds=9), "llm_rate_limited")
    closing = gate.untold()
    assert closing is not None
    assert (closing.wait, closing.reason) == (timedelta(seconds=9), "llm_rate_limited")
    # Told in a transaction that was rolled back: it is still to be told.
    assert gate.untold() == closing
    gate.told(closing)
    assert gate.untold() is None
