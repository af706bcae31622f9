"""What decides about entries that lost their owner, and the trial, without a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st

from streams.redis.delivery_tags import DeliveryTags
from streams.redis.partition import Partition
from streams.redis.settings import RedisSettings
from streams.redis.trial import Redelivery, Silent, Trial
from tests.stepped_clock import Clock

COUNTS = st.integers(min_value=0, max_value=12)
LIMITS = st.integers(min_value=2, max_value=8)


def rules(max_deliveries: int = 5) -> Redelivery:
    """The rules with a lease of 15 s and a scan each second."""
    return Redelivery(RedisSettings(max_deliveries=max_deliveries))


def expired(counts: list[int]) -> dict[bytes, int]:
    """Entries that were delivered so often, oldest first."""
    return {b"%d-0" % number: count for number, count in enumerate(counts)}


@pytest.mark.parametrize(
    ("max_deliveries", "trials"), [(2, [2]), (3, [3]), (4, [3, 4]), (5, [4, 5]), (6, [5, 6]), (20, [19, 20])]
)
def test_an_entry_that_always_kills_its_worker_is_tried_last_and_then_buried(
    max_deliveries: int, trials: list[int]
) -> None:
    """The last two deliveries are trials, of two or three the last; then it is poison, and never before."""
    redelivery = rules(max_deliveries)
    tried, deliveries = [], 1
    while not redelivery.poison({b"1-0": deliveries}):
        alone = redelivery.to_try({b"1-0": deliveries})
        assert bool(alone) != bool(redelivery.in_small_company({b"1-0": deliveries}, []))
        deliveries += 1
        assert redelivery.was_trial(deliveries) is bool(alone)
        tried += [deliveries] if alone else []
    assert (deliveries, tried) == (max_deliveries, trials)


@given(counts=st.lists(COUNTS, max_size=60), max_deliveries=LIMITS)
def test_every_entry_is_for_company_or_a_trial_or_buried(counts: list[int], max_deliveries: int) -> None:
    """Nothing that has expired falls between the three, and nothing is for two of them."""
    redelivery, entries = rules(max_deliveries), expired(counts)
    alone, poison = redelivery.to_try(entries), [entry_id for entry_id, _ in redelivery.poison(entries)]
    company = [one for one in entries if redelivery.in_small_company({one: entries[one]}, [])]
    assert sorted([*alone, *poison, *company]) == sorted(entries)


@given(
    counts=st.lists(COUNTS, max_size=400),
    held=st.lists(COUNTS, max_size=400),
    max_deliveries=LIMITS,
)
def test_company_is_small_and_smaller_the_worse_an_entry_looks(
    counts: list[int], held: list[int], max_deliveries: int
) -> None:
    """Beside an entry there are at most sixteen to the power of the deliveries that it has left before its trials."""
    redelivery, entries = rules(max_deliveries), expired(counts)
    fitting = redelivery.in_small_company(entries, held)
    assert fitting == [one for one in entries if one in set(fitting)], "oldest first"
    worn = max_deliveries - (2 if max_deliveries >= 4 else 1)
    beside = list(held)
    for one in fitting:
        if entries[one]:
            assert sum(count >= entries[one] for count in beside) < 16 ** (worn - entries[one])
        beside.append(entries[one])


@given(counts=st.lists(COUNTS, min_size=1, max_size=60), max_deliveries=LIMITS)
def test_a_worker_that_holds_nothing_takes_one_at_least(counts: list[int], max_deliveries: int) -> None:
    """However bad entries look, they do not keep each other waiting for ever."""
    redelivery, entries = rules(max_deliveries), expired(counts)
    healthy = [one for one, count in entries.items() if redelivery.in_small_company({one: count}, [])]
    assert redelivery.in_small_company(entries, [])[:1] == healthy[:1]


@given(held=st.lists(COUNTS, max_size=400))
def test_what_was_handed_back_uncounted_never_waits_for_company(held: list[int]) -> None:
    """An entry that a stopping worker handed back was not begun, and nobody suspects it."""
    assert rules().in_small_company({b"1-0": 0}, held) == [b"1-0"]


ROWS = st.lists(
    st.tuples(st.integers(7_500, 60_000), COUNTS, st.booleans()), max_size=30
)  # idle time, deliveries, whether this consumer holds it


@given(rows=ROWS)
def test_nothing_expires_unseen(rows: list[tuple[int, int, bool]]) -> None:
    """The next look comes no later than any lease ends, and what this consumer holds itself never expires."""
    redelivery = rules()
    pending = [(b"%d-0" % number, b"someone", idle, count) for number, (idle, count, _) in enumerate(rows)]
    own = {b"%d-0" % number for number, (_, _, held) in enumerate(rows) if held}
    silent = redelivery.silent(pending, own.__contains__)
    assert silent.expired == {row[0]: row[3] for row in pending if row[0] not in own and row[2] >= 15_000}
    ends_ms = [15_000 - row[2] for row in pending if row[0] not in own and row[2] < 15_000]
    assert silent.next_ms == min(ends_ms, default=None)
    next_s = redelivery.until_next(silent)
    # What no look has seen was renewed less than half a lease ago.
    assert 0 < next_s <= 7.5
    if ends_ms:
        assert next_s <= (min(ends_ms) + 1) / 1000


@pytest.mark.parametrize(
    ("silent", "next_s"),
    [
        (Silent({}, None), 7.5),
        (Silent({b"1-0": 1}, None), 1.0),
        (Silent({}, 300), 0.301),
        (Silent({}, 7_000), 1.0),
        (Silent({b"1-0": 1}, 300), 0.301),
    ],
)
def test_an_idle_stream_is_looked_at_twice_a_lease(silent: Silent, next_s: float) -> None:
    """While nothing is silent half a lease is soon enough; else the next lease's end, or a scan's interval."""
    assert rules().until_next(silent) == next_s


def test_a_long_lease_is_looked_at_as_often_as_the_settings_say() -> None:
    """What could not be taken over at once is looked at again after a scan's interval."""
    settings = RedisSettings(lease=timedelta(minutes=1), scan=timedelta(seconds=3))
    redelivery = Redelivery(settings)
    assert redelivery.until_next(Silent({b"1-0": 1}, None)) == 3.0
    assert redelivery.until_next(Silent({}, 20_000)) == 3.0
    assert redelivery.until_next(Silent({}, None)) == 30.0


@given(deliveries=st.integers(1, 40), max_deliveries=LIMITS)
def test_a_withdrawn_trial_is_not_the_last(deliveries: int, max_deliveries: int) -> None:
    """A trial that does not count leaves one more, also where the limit was lowered meanwhile."""
    before = rules(max_deliveries).without_trial(deliveries)
    assert before == min(deliveries - 1, max_deliveries)


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
