"""One process at a time applies a plan of discards, at a rate. Stopped anywhere, it can go on.

A batch is one transaction: its events are discarded, what became of each is noted in the plan, and the log of actions
has a line. If the process dies before the commit, the batch is done again, and nothing of it had happened; after it,
the next batch follows. Nothing is published.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from time import monotonic
from typing import Final
from uuid import UUID

from infra.actions import Act, acting, current_actor, note
from infra.errors import Refused
from infra.operations.discard_plans import DiscardPlan, digest_of, queries, read_discard_plan
from infra.postgres import Connection, Database
from infra.texts import storable
from producers.applying import Pace, alone, uninterrupted
from streams.delivery.failed_events import discard

_LONGEST_REASON: Final = 1_000


@dataclass(frozen=True, slots=True)
class DiscardProgress:
    """The progress of a plan."""

    total: int
    left: int
    discarded: int


def _ignore(_progress: DiscardProgress) -> None:
    pass


@dataclass(frozen=True, slots=True)
class DiscardApplier:
    """Applies plans of discards."""

    database: Database

    async def apply(
        self,
        plan_id: UUID,
        *,
        because: str,
        rate: float,
        report: Callable[[DiscardProgress], None] = _ignore,
        at_most: timedelta | None = None,
    ) -> DiscardPlan:
        """Discard what is left of a plan, and return the plan as it is then. A finished plan is returned as it is.

        Cancelling the call stops it after the batch under way; calling it again goes on from there.

        Args:
            plan_id: which plan.
            because: why, for those who ask later. What was said first holds.
            rate: events per second.
            report: told of the progress after each batch.
            at_most: stop in good order after this long, with the plan unfinished.

        Raises:
            Refused: there is no such plan, it was aborted or changed, or another process applies it.
            DependencyDown: Postgres is away; calling again goes on.
        """
        if not because.strip():
            raise Refused("invalid_request", "because: say why; it stays on record")
        act = Act("discard.apply", f"plan {plan_id}", because, {"rate": rate})
        async with alone(self.database, plan_id, act, _busy(plan_id)):
            async with acting(self.database, act) as connection:
                plan = await read_discard_plan(connection, plan_id)
                act.effects |= {"state": plan.state, "discarded": plan.discarded, "left": plan.left}
                if plan.state == "finished":
                    return plan
                reason = await self._begin(connection, plan, because)
            await self._run(plan, reason, rate, report, at_most)
        async with self.database.transaction() as connection:
            return await read_discard_plan(connection, plan_id)

    async def _begin(self, connection: Connection, plan: DiscardPlan, because: str) -> str:
        """Note that a plan is being applied, unless it may not be; return why."""
        reason = storable(because.strip(), _LONGEST_REASON)
        begun = await queries.begin(connection, id=plan.id, reason=reason, now=self.database.clock.now())
        if begun is None:
            raise _aborted(plan.id)
        if await digest_of(connection, plan.id) != plan.digest:
            raise Refused("plan_changed", f"plan {plan.id}: its set is not the one that was shown; make a new plan")
        return str(begun)

    async def _run(
        self,
        plan: DiscardPlan,
        reason: str,
        rate: float,
        report: Callable[[DiscardProgress], None],
        at_most: timedelta | None,
    ) -> None:
        deadline = monotonic() + at_most.total_seconds() if at_most else inf
        pace = Pace(rate)
        progress = DiscardProgress(plan.total, plan.left, plan.discarded)
        report(progress)
        while progress.left:
            if monotonic() >= deadline:
                return
            done = await uninterrupted(self._batch(plan.id, reason, pace.batch))
            progress = DiscardProgress(
                progress.total, progress.left - done.total(), progress.discarded + done["discarded"]
            )
            report(progress)
            await pace.after(done.total())
        async with self.database.transaction() as connection:
            await queries.end(connection, id=plan.id, state="finished", now=self.database.clock.now())

    async def _batch(self, plan_id: UUID, reason: str, size: int) -> Counter[str]:
        """Discard the next events; return what became of them."""
        by, now = current_actor().name, self.database.clock.now()
        async with self.database.transaction() as connection:
            if await queries.state(connection, id=plan_id) == "aborted":
                raise _aborted(plan_id)
            rows = [row async for row in queries.next_batch(connection, plan_id=plan_id, limit=size)]
            ids, times = [row["failed_event_id"] for row in rows], [row["occurrences"] for row in rows]
            discarded = await discard(connection, ids, times, because=reason, by=by, now=now)
            positions = [row["position"] for row in rows]
            await queries.note_done(connection, plan_id=plan_id, positions=positions, discarded=discarded, now=now)
            counts = Counter({"discarded": len(discarded), "changed": len(rows) - len(discarded)})
            if rows:
                effects = {"positions": f"{positions[0]} to {positions[-1]}", **counts}
                await note(connection, Act("failed.discard", f"plan {plan_id}", reason, effects))
        return counts


def _busy(plan_id: UUID) -> Refused:
    return Refused(
        "plan_busy", f"plan {plan_id}: somebody else is applying it now; `teamfit discard status` shows how far"
    )


def _aborted(plan_id: UUID) -> Refused:
    return Refused("plan_aborted", f"plan {plan_id}: was aborted; make a new one for what is left")
