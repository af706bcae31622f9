"""An entry that lost its owner is delivered again, tried alone, or buried. Decided without a server.

Claiming an entry counts as a delivery. One that has been delivered `max_deliveries` times goes to the dead letters, and
this is safe because its last two deliveries were trials, alone in its worker: see `trial.py`. All deliveries before
that may count for nothing, since an entry that kills its worker drags along whatever that worker held, started or not;
they only bring the trials nearer.

So that few neighbours come that far, an entry's company shrinks by a factor of sixteen with each delivery, down to
none: with five deliveries, 256 that have been delivered once are under way in a worker at the same time, 16 of two. The
poison takes fewer along each time, and those it left behind are soon done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .settings import RedisSettings

__all__ = ["Redelivery", "Silent"]

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
