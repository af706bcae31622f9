"""An entry that lost its owner is delivered again, tried alone, or buried. Decided without a server.

Claiming an entry counts as a delivery. One that has been delivered `max_deliveries` times goes to the dead letters, and
this is safe because its last two deliveries were trials, alone in its worker. All deliveries before that may count for
nothing, since an entry that kills its worker drags along whatever that worker held, started or not; they only bring the
trials nearer.

So that few neighbours come that far, an entry's company shrinks by a factor of sixteen with each delivery, down to
none: with five deliveries, 256 that have been delivered once are under way in a worker at the same time, 16 of two. The
poison takes fewer along each time, and those it left behind are soon done.

The trial: the last two deliveries of an entry are alone in their worker.

An entry that kills its worker drags its neighbours along: whatever that worker held counts one more delivery, and so do
entries that no agent has started. The count alone proves nothing. So an entry is handed over for the last two times,
those that count against it, only when its worker has nothing else: nothing of any topic is held, no agent works, and
nothing new is handed out until the entry is acknowledged. Whoever dies then dies of that entry, or of something that is
no entry at all; that is why there are two.

    free ──apply──▶ clearing ──is_clear──▶ under way ──acknowledged, or lost──▶ clearing, for the next one
     ▲                 │                       └──────too long: withdrawn─────▶ free
     └─── rest ◀───────┴─ none left to try, or too long

One worker of the group tries, the leader, and the others go on: a trial costs the fleet one worker, for as long as its
agents need to finish and the entry takes. Both have a limit, because an agent may hang, or wait for an event that only
this worker can get: beyond it the worker reads again, and before it does so the trial is withdrawn. The server then
counts one delivery less, and the entry will be tried another time. After that the worker rests from trials for longer
than they took.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from .partition import Partition
from .settings import RedisSettings

__all__ = ["Redelivery", "Silent", "Trial"]

log = logging.getLogger(__name__)

# By how much the company shrinks that an entry is redelivered in.
_NARROWING = 16

# Trials are the last two deliveries, where there are this many or more: what kills a worker from outside would have to
# come twice. With fewer it is the last: one crash must not send all that its worker held to be tried one by one.
_TWO_TRIALS_FROM = 4


class Silent(NamedTuple):
    """Entries that were not renewed for almost a lease, oldest first."""

    expired: Mapping[bytes, int]
    """How often each has been delivered whose lease has run out."""
    next_ms: int | None
    """When the lease of the next one will have run out."""


class Redelivery:
    """The rules, for one set of settings."""

    def __init__(self, settings: RedisSettings) -> None:
        self._limit = settings.max_deliveries
        # Who has been delivered so often is delivered next to be tried.
        self._worn = self._limit - (2 if self._limit >= _TWO_TRIALS_FROM else 1)
        self._scan_s = settings.scan.total_seconds()
        self.lease_ms = int(settings.lease.total_seconds() * 1000)
        self.ahead_ms = self.lease_ms // 2
        """How long an entry is silent that a scan sees. Beyond what a living owner lets pass without a renewal, or each
        scan would find all that is under way."""

    def silent(self, rows: Iterable[Sequence[Any]], holds: Callable[[bytes], bool]) -> Silent:
        """Read the server's rows: ID, consumer, idle time in milliseconds, deliveries.

        What this consumer holds itself is only late to be renewed, perhaps because the loop was blocked.
        """
        others = [(row[0], int(row[2]), int(row[3])) for row in rows if not holds(row[0])]
        expired = {entry_id: deliveries for entry_id, idle_ms, deliveries in others if idle_ms >= self.lease_ms}
        left_ms = [self.lease_ms - idle_ms for entry_id, idle_ms, _ in others if entry_id not in expired]
        return Silent(expired, min(left_ms, default=None))

    def in_small_company(self, expired: Mapping[bytes, int], held: Iterable[int]) -> list[bytes]:
        """Those that may be delivered together now, beside what is held.

        Args:
            expired: as in `Silent`.
            held: of each entry that this consumer holds, how often it had been delivered before.
        """
        under_way = Counter(held)
        fitting = []
        for entry_id, deliveries in expired.items():
            if deliveries >= self._worn:
                continue
            company = _NARROWING ** (self._worn - deliveries)
            beside = sum(number for count, number in under_way.items() if count >= deliveries)
            if deliveries == 0 or beside < company:
                fitting.append(entry_id)
                under_way[deliveries] += 1
        return fitting

    def to_try(self, expired: Mapping[bytes, int]) -> list[bytes]:
        """Those whose next delivery must be a trial."""
        return [entry_id for entry_id, deliveries in expired.items() if self._worn <= deliveries < self._limit]

    def poison(self, expired: Mapping[bytes, int]) -> list[tuple[bytes, int]]:
        """Those that have failed their trials, and how often each has been delivered."""
        return [(entry_id, deliveries) for entry_id, deliveries in expired.items() if deliveries >= self._limit]

    def was_trial(self, deliveries: int) -> bool:
        """Return whether a delivery counts against the entry. It does if it was to have its worker to itself."""
        return deliveries > self._worn

    def without_trial(self, deliveries: int) -> int:
        """Return the entry's delivery count without its last delivery, a trial."""
        return min(deliveries - 1, self._limit)

    def until_next(self, silent: Silent) -> float:
        """Return the seconds until the next look. Nothing that this look did not see can have expired by then."""
        if silent.next_ms is not None:
            return min((silent.next_ms + 1) / 1000, self._scan_s)
        return self._scan_s if silent.expired else self.ahead_ms / 1000


# How many leases a worker waits for its agents, and then for the entry on trial: five minutes by default, longer than
# agents usually take.
_LIMIT_LEASES = 20

# How much longer than the trials took a worker rests from them: it spends a quarter of its time on them at most.
_REST = 3


class Trial:
    """A worker's one slot for an entry that is tried, over all topics and partitions."""

    def __init__(
        self,
        lease_s: float,
        is_leader: Callable[[], bool],
        nothing_under_way: Callable[[], bool],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._limit_s = lease_s * _LIMIT_LEASES
        self._is_leader = is_leader
        self._nothing_under_way = nothing_under_way
        self._clock = clock
        self._readers: set[object] = set()
        self._standing: set[object] = set()  # readers that hand out nothing now, and know it
        self._applicant: object | None = None
        self._entry: tuple[Partition, bytes] | None = None
        self._began = self._entry_began = self._rested = 0.0

    def join(self, reader: object) -> None:
        """From now on this reader asks before each of its rounds."""
        self._readers.add(reader)

    def leave(self, reader: object) -> None:
        """The reader has ended."""
        self._readers.discard(reader)
        self._standing.discard(reader)
        if self._applicant is reader:
            self._applicant = self._entry = None

    def apply(self, reader: object) -> None:
        """Stop all readers for the trial of an entry, unless it is too early."""
        if self._applicant is None and self._clock() >= self._rested and self._is_leader():
            self._applicant, self._began = reader, self._clock()

    @property
    def is_open(self) -> bool:
        """Return whether this worker's readers stand still for a trial, or a trial runs."""
        return self._applicant is not None

    def stands(self, reader: object) -> bool:
        """Return whether the reader must hand out nothing in this round."""
        if self._entry is not None and not self._is_held(self._entry):
            self._entry = None
        if self._applicant is None or self.is_clear(reader) or self.is_overdue(reader):
            self._standing.discard(reader)
            return False
        self._standing.add(reader)
        return True

    def is_clear(self, reader: object) -> bool:
        """Return whether the reader may hand over one entry to be tried, now."""
        return (
            self._applicant is reader
            and self._entry is None
            and self._standing >= self._readers - {reader}
            and self._nothing_under_way()
        )

    def is_overdue(self, reader: object) -> bool:
        """Return whether the clearing or the trial has taken too long. The reader then ends or withdraws it."""
        since = self._began if self._entry is None else self._entry_began
        return self._applicant is reader and self._clock() - since > self._limit_s

    def begin(self, partition: Partition, entry_id: bytes) -> None:
        """Start the trial of a claimed entry. Its delivery is counted, and it will be handed over in this step."""
        self._entry, self._entry_began = (partition, entry_id), self._clock()

    def withdraw(self) -> tuple[Partition, bytes] | None:
        """Return the entry on trial that must not be on trial any longer."""
        if self._entry is not None:
            partition, _ = self._entry
            log.warning("trial.withdrawn stream=%s: it takes too long", partition.stream.decode())
        return self._entry

    def end(self, reader: object) -> None:
        """Read again, if it was this reader that had the others stand still."""
        if self._applicant is reader:
            self._applicant = self._entry = None
            self._rested = self._clock() + _REST * (self._clock() - self._began)

    @staticmethod
    def _is_held(entry: tuple[Partition, bytes]) -> bool:
        partition, entry_id = entry
        return partition.tags.holds(entry_id)
