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


@pytest.mark.parametrize(("wait_s", "spread_s"), [(0.5, 0.2), (20, 2), (3600, 5)])
def test_a_closed_gate_sends_everybody_back_at_a_different_time(wait_s: float, spread_s: float) -> None:
    """Nobody comes before the time named, and the fleet comes over a while, not at once."""
    gate = Gate("e", Seconds())
    gate.close(timedelta(seconds=wait_s), "llm_rate_limited")
    waits = [wait_of(gate) for _ in range(200)]
    assert wait_s <= min(waits) < max(waits) <= wait_s + spread_s
    assert max(waits) - min(waits) > spread_s / 2


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
