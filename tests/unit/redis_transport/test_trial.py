"""The slot for an entry that is tried, without a server and without waiting."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from faust.types import TP

from streams.redis.delivery_tags import DeliveryTags
from streams.redis.partition import Partition
from streams.redis.trial import Trial
from tests.stepped_clock import Clock

LEASE_S = 15.0
LIMIT_S = 20 * LEASE_S
ONE, OTHER = "reader of orders", "reader of refunds"
ENTRY = b"1-0"


@dataclass
class Scene:
    """A worker of two readers."""

    clock: Clock
    is_leader: bool = True
    is_idle: bool = True
    partition: Partition = field(
        default_factory=lambda: Partition(TP("orders", 0), b"orders", "group", "me", DeliveryTags(lambda: None))
    )

    def __post_init__(self) -> None:
        self.trial = Trial(LEASE_S, lambda: self.is_leader, lambda: self.is_idle, self.clock)
        for reader in (ONE, OTHER):
            self.trial.join(reader)

    def clear(self) -> None:
        """Have one reader apply, and the other stand still."""
        self.trial.apply(ONE)
        assert self.trial.stands(OTHER)
        assert not self.trial.stands(ONE)
        assert self.trial.is_clear(ONE)

    def begin(self) -> None:
        """Have an entry tried."""
        self.clear()
        self.partition.tags.deliver(ENTRY)
        self.trial.begin(self.partition, ENTRY)


@pytest.fixture
def scene(clock: Clock) -> Scene:
    """A worker that is the leader and has nothing to do."""
    return Scene(clock)


def test_nobody_stands_still_for_nothing(scene: Scene) -> None:
    """Without an entry to try, all readers read."""
    assert [scene.trial.stands(reader) for reader in (ONE, OTHER)] == [False, False]
    assert not scene.trial.is_open


def test_only_the_leader_tries(scene: Scene) -> None:
    """A worker that is not the leader goes on reading, until it is."""
    scene.is_leader = False
    scene.trial.apply(ONE)
    assert not scene.trial.is_open
    scene.is_leader = True
    scene.trial.apply(ONE)
    assert scene.trial.is_open


def test_a_trial_begins_when_all_others_stand_and_nothing_is_under_way(scene: Scene) -> None:
    """The applicant stands still too while an agent works or another reader may hand something out."""
    scene.trial.apply(ONE)
    assert scene.trial.stands(ONE), "the other reader may be in a round"
    assert scene.trial.stands(OTHER)
    scene.is_idle = False
    assert scene.trial.stands(ONE), "an agent works"
    scene.is_idle = True
    assert not scene.trial.stands(ONE)
    assert scene.trial.is_clear(ONE)
    assert not scene.trial.is_clear(OTHER), "it has not applied"


def test_a_second_reader_waits_for_the_firsts_trial(scene: Scene) -> None:
    """One slot for all readers: who applies while it is taken is told to stand still."""
    scene.trial.apply(ONE)
    scene.trial.apply(OTHER)
    assert scene.trial.stands(OTHER)
    scene.trial.end(OTHER)
    assert scene.trial.is_open, "it is not this reader's to end"


@pytest.mark.parametrize("end", ["settle", "lose"])
def test_the_next_entry_is_tried_when_this_one_is_done_or_lost(scene: Scene, end: str) -> None:
    """During the trial nobody reads; after it the applicant may hand over the next one at once."""
    scene.begin()
    scene.is_idle = False
    assert [scene.trial.stands(reader) for reader in (ONE, OTHER)] == [True, True]
    getattr(scene.partition.tags, end)([ENTRY])
    scene.is_idle = True
    assert scene.trial.stands(OTHER)
    assert not scene.trial.stands(ONE)
    assert scene.trial.is_clear(ONE)


def test_a_clearing_that_takes_too_long_ends(scene: Scene) -> None:
    """An agent that hangs does not make its worker deaf: after twenty leases it reads again."""
    scene.is_idle = False
    scene.trial.apply(ONE)
    scene.clock.now += LIMIT_S
    assert scene.trial.stands(ONE)
    scene.clock.now += 1
    assert not scene.trial.stands(ONE)
    assert scene.trial.is_overdue(ONE)
    assert not scene.trial.is_overdue(OTHER)
    assert scene.trial.withdraw() is None, "no entry was on trial"
    scene.trial.end(ONE)
    assert [scene.trial.stands(reader) for reader in (ONE, OTHER)] == [False, False]


def test_a_trial_that_takes_too_long_is_withdrawn(scene: Scene) -> None:
    """The entry's own time counts, not that of the clearing before it."""
    scene.trial.apply(ONE)
    scene.clock.now += LIMIT_S - 1
    assert scene.trial.stands(OTHER)
    scene.partition.tags.deliver(ENTRY)
    scene.trial.begin(scene.partition, ENTRY)
    scene.clock.now += LIMIT_S
    assert not scene.trial.is_overdue(ONE)
    scene.clock.now += 1
    assert scene.trial.is_overdue(ONE)
    assert scene.trial.withdraw() == (scene.partition, ENTRY)
    scene.trial.end(ONE)
    assert not scene.trial.is_open


def test_a_worker_rests_from_trials_for_three_times_as_long(scene: Scene) -> None:
    """It spends a quarter of its time on them at most, however many entries are to be tried."""
    scene.clear()
    scene.clock.now += 10
    scene.trial.end(ONE)
    for _ in range(2):
        scene.clock.now += 14.9
        scene.trial.apply(OTHER)
        assert not scene.trial.is_open
    scene.clock.now += 0.2
    scene.trial.apply(OTHER)
    assert scene.trial.is_open


def test_a_reader_that_ends_holds_nobody_up(scene: Scene) -> None:
    """Neither the applicant's end nor that of a reader that has not stood still yet leaves the others standing."""
    scene.trial.apply(ONE)
    assert scene.trial.stands(ONE)
    scene.trial.leave(OTHER)
    assert not scene.trial.stands(ONE)
    assert scene.trial.is_clear(ONE)
    scene.trial.join(OTHER)
    assert scene.trial.stands(OTHER)
    scene.trial.leave(ONE)
    assert not scene.trial.stands(OTHER)
    assert not scene.trial.is_open
