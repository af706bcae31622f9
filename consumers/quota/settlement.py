"""Settlement charges a completed run's unit and gives back that of any other run."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

import structlog

from consumers.quota import ledger
from consumers.quota.decisions import Decision, LedgerState
from consumers.quota.ledger import Locked, Overtaken, UsageKey
from infra.clock import Clock
from infra.postgres import Connection, Database
from streams.jobs.admission import period_of
from streams.jobs.events import JobCompleted, TerminalFact

log = structlog.get_logger(__name__)

# How counters are locked; those that are not are left out of what it returns.
_Lock: TypeAlias = Callable[[Connection, Iterable[UsageKey]], Awaitable[Mapping[UsageKey, int]]]


@dataclass(frozen=True, slots=True)
class Settlements:
    """Settles reservations, in batches."""

    database: Database
    clock: Clock

    async def settle(self, facts: Sequence[TerminalFact], wait: timedelta | None = None) -> Sequence[None]:
        """Settle a batch in one transaction with a fixed number of statements. Repeating it changes nothing.

        Of several facts about a run the first counts. A fact that comes before its run's reservation (the run was
        cancelled, or given up, while its request still waited) closes the run in the ledger, so that the request finds
        it closed and reserves nothing that would never be settled.

        Args:
            facts: in the stream's order.
            wait: for how long a lock may be waited for; None: for as long as it takes.

        Raises:
            Locked: a lock took longer. Nothing is settled.
            DependencyDown: Postgres is away; whether it was settled is unknown, and asking again is safe.
        """
        await self._settle_all(facts, ledger.lock_usage, wait)
        return [None] * len(facts)

    async def settle_free(self, facts: Sequence[TerminalFact]) -> Sequence[Locked | None]:
        """Settle what needs no wait for a counter; hand back the rest.

        `settle` does the same, with waiting, and the rest is Locked.
        """
        aside = await self._settle_all(facts, ledger.lock_free_usage, None)
        return [
            Locked(f"the counter of {fact.data.organization_id} is locked")
            if (fact.job_id, fact.run) in aside
            else None
            for fact in facts
        ]

    async def _settle_all(self, facts: Sequence[TerminalFact], lock: _Lock, wait: timedelta | None) -> set[ledger.Run]:
        while True:
            try:
                async with self.database.transaction() as connection:
                    with ledger.limited_wait(wait):
                        return await self._settle(connection, facts, lock, wait)
            except Overtaken:
                continue

    async def _settle(
        self, connection: Connection, facts: Sequence[TerminalFact], lock: _Lock, wait: timedelta | None
    ) -> set[ledger.Run]:
        """Return the runs that were put aside, because their counters were not to be had."""
        now = self.clock.now()
        ending: dict[ledger.Run, TerminalFact] = {}
        for fact in facts:
            ending.setdefault((fact.job_id, fact.run), fact)
        known = await ledger.decisions(connection, {job_id for job_id, _ in ending}, wait)
        reserved: dict[ledger.Run, LedgerState] = {
            run: "charged" if isinstance(fact, JobCompleted) else "released"
            for run, fact in ending.items()
            if run in known and known[run].state == "reserved"
        }
        counters = {run: (known[run].organization_id, known[run].period) for run in reserved}
        locked = await lock(connection, set(counters.values())) if counters else {}
        aside = {run for run, counter in counters.items() if counter not in locked}
        unknown = [fact for run, fact in ending.items() if run not in known]
        # A request under way may be about to enter one of these runs. Its uncommitted row makes this wait, and be
        # overtaken; ours makes the request wait, and find the run closed. Neither misses the other.
        await ledger.enter(connection, [self._closed(fact) for fact in unknown], at=now)
        settled = {run: state for run, state in reserved.items() if run not in aside}
        if settled:
            await ledger.settle(connection, settled, at=now)
        return aside

    def _closed(self, fact: TerminalFact) -> Decision:
        if isinstance(fact, JobCompleted):
            # Never by our own stages: they generate only what was reserved. Charging now could overspend the quota.
            log.warning("quota.completed_unreserved", job_id=str(fact.job_id), run=fact.run)
        now = self.clock.now()
        return Decision(
            job_id=fact.job_id,
            run=fact.run,
            organization_id=fact.data.organization_id,
            period=period_of(now),
            state="released",
            code=None,
            message=f"{fact.type} came before any reservation",
            priority=False,
            decided_at=now,
        )
