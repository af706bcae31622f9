"""One process at a time applies a plan of discards, at a rate. Stopped anywhere, it can go on.

A batch is one transaction: its events are discarded, what became of each is noted in the plan, and the log of actions
has a line. If the process dies before the commit, the batch is done again, and nothing of it had happened; after it,
the next batch follows. Nothing is published.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, Unpack
from uuid import UUID

from infra.actions import Act, current_actor, note
from infra.operations.discard_plans import DiscardPlan, digest_of, queries, read_discard_plan
from infra.operations.plan_applying import How, Undertaking
from infra.postgres import Database
from streams.delivery.failed_events import discard

_UNDERTAKING: Final[Undertaking[DiscardPlan]] = Undertaking(
    command="discard",
    for_whom="it stays on record",
    longest_reason=1_000,
    queries=queries,
    read=read_discard_plan,
    digest_of=digest_of,
    told=lambda plan: {"state": plan.state, "discarded": plan.discarded, "left": plan.left},
)


@dataclass(frozen=True, slots=True)
class DiscardApplier:
    """Applies plans of discards."""

    database: Database

    async def apply(self, plan_id: UUID, **how: Unpack[How]) -> DiscardPlan:
        """Discard what is left of a plan; see `Undertaking.apply`. The rate is failed events."""
        return await _UNDERTAKING.apply(
            self.database, plan_id, lambda reason, most: self._batch(plan_id, reason, most), **how
        )

    async def _batch(self, plan_id: UUID, reason: str, size: int) -> Counter[str]:
        """Discard the next events; return what became of them."""
        by, now = current_actor().name, self.database.clock.now()
        async with self.database.transaction() as connection:
            await _UNDERTAKING.refuse_aborted(connection, plan_id)
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
