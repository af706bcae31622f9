"""How much a worker asks for."""

from streams.redis.window import Window
from tests.stepped_clock import Clock


def run(window: Window, clock: Clock, *, per_second: float, seconds: float) -> None:
    """Let an agent start events at a steady rate."""
    started = 0.0
    for _ in range(int(seconds / 0.02)):
        clock.now += 0.02
        started += per_second * 0.02
        window.observe(int(started))


def test_a_fast_agent_gets_hundreds(clock: Clock) -> None:
    """At 20,000 events a second, 50 ms of work is a thousand entries, which is the most."""
    window = Window(1000, clock)
    run(window, clock, per_second=20_000, seconds=3)
    assert window.size > 900
    assert window.room(queued=0, idle_agents=1) == window.size


def test_slow_agents_hoard_nothing(clock: Clock) -> None:
    """One agent that takes a second for each event has nothing waiting; when it is idle it gets one."""
    window = Window(1000, clock)
    run(window, clock, per_second=1, seconds=10)
    assert window.room(queued=0, idle_agents=0) == 0
    assert window.room(queued=0, idle_agents=1) == 1


def test_a_burst_is_not_a_rate(clock: Clock) -> None:
    """Three hundred idle agents that start at once do not make the worker fetch six hundred more."""
    window = Window(1000, clock)
    clock.now += 0.02
    window.observe(300)
    assert window.size < 20


def test_nothing_is_fetched_for_a_crumb(clock: Clock) -> None:
    """While the queue is more than half full, asking for the rest would cost a round trip for little."""
    window = Window(1000, clock)
    run(window, clock, per_second=20_000, seconds=3)
    assert window.room(queued=window.size - 10, idle_agents=0) == 0
    assert window.room(queued=window.size // 4, idle_agents=0) > 0


def test_a_window_forgets(clock: Clock) -> None:
    """An agent that was fast and has become slow stops getting hundreds within seconds."""
    window = Window(1000, clock)
    run(window, clock, per_second=20_000, seconds=3)
    clock.now += 10
    window.observe(60_000)
    assert window.size == 0
