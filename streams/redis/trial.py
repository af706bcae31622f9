"""The trial: the last two deliveries of an entry are alone in their worker.

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
from collections.abc import Callable
from time import monotonic

from .partition import Partition

__all__ = ["Trial"]

log = logging.getLogger(__name__)

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
