"""One process at a time applies a plan, at a rate. Stopped anywhere, it can go on.

The set is held against the digest that was shown. A batch is one transaction: what the plan is for is done to its
items, what became of each is noted in the plan, and the log of actions has a line. If the process dies before the
commit, the batch is done again, and nothing of it had happened; after it, the next batch follows.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import inf
from time import monotonic
from typing import Any, Required, TypeAlias, TypedDict, Unpack
from uuid import UUID

from infra.actions import Act, acting, note
from infra.errors import Refused
from infra.operations.frozen_plans import FrozenPlans, Plan
from infra.postgres import Connection
from infra.texts import storable
from producers.applying import Pace, alone, uninterrupted

AnyPlans: TypeAlias = FrozenPlans[Any, Plan, Any, Any]


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a plan."""

    total: int
    left: int


class How(TypedDict, total=False):
    """The way in which a plan is applied.

    Attributes:
        because: why. What was said first holds.
        rate: items per second.
        report: told of the progress after each batch.
        at_most: stop in good order after this long, with the plan unfinished.
    """

    because: Required[str]
    rate: Required[float]
    report: Callable[[Progress], None]
    at_most: timedelta


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of a plan whose turn it is, as the kind's `next_batch` reads them."""

    plan_id: UUID
    rows: Sequence[Any]
    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Done:
    """A batch's results, one for each item in its order, and what follows their commit."""

    results: Sequence[str]
    afterwards: Callable[[], Awaitable[None]] | None = None


Work: TypeAlias = Callable[[Connection, Batch], Awaitable[Done]]


async def apply_plan(plans: AnyPlans[Plan], plan_id: UUID, work: Work, **how: Unpack[How]) -> Plan:
    """Do what is left of a plan, and return the plan as it is then. A finished plan is returned as it is.

    Cancelling the call stops it after the batch under way; calling it again goes on from there.

    Args:
        plans: of the plan's kind.
        plan_id: which plan.
        work: does to a batch what the plan is for, in the batch's transaction.
        how: see there.

    Raises:
        Refused: there is no such plan, it was aborted or changed, or another process applies it.
        DependencyDown: Postgres is away; calling again goes on.
    """
    kind, because = plans.kind, how["because"]
    if not because.strip():
        raise Refused("invalid_request", f"because: say why; {kind.because}")
    act = Act(f"{kind.command}.apply", f"plan {plan_id}", because, {"rate": how["rate"]})
    status = f"`teamfit {kind.command} status` shows how far"
    busy = Refused("plan_busy", f"plan {plan_id}: somebody else is applying it now; {status}")
    async with alone(plans.database, plan_id, act, busy):
        async with acting(plans.database, act) as connection:
            plan = await plans.read(connection, plan_id)
            act.effects |= plan.so_far()
            if plan.state == "finished":
                return plan
            reason = await _begin(connection, plans, plan, storable(because.strip(), kind.longest_reason))
        if await _work_through(plans, plan, work, reason, how):
            async with plans.database.transaction() as connection:
                await kind.queries.end(connection, id=plan.id, state="finished", now=plans.database.clock.now())
    return await plans.get(plan_id)


async def _begin(connection: Connection, plans: AnyPlans[Plan], plan: Plan, reason: str) -> str:
    """Note that a plan is being applied, unless it may not be; return why."""
    begun = await plans.kind.queries.begin(connection, id=plan.id, reason=reason, now=plans.database.clock.now())
    if begun is None:
        raise _aborted(plan.id)
    if await plans.digest_of(connection, plan.id) != plan.digest:
        raise Refused("plan_changed", f"plan {plan.id}: its set is not the one that was shown; make a new plan")
    return str(begun)


async def _work_through(plans: AnyPlans[Plan], plan: Plan, work: Work, reason: str, how: How) -> bool:
    """Do what is left, batch by batch; return whether nothing is left."""
    at_most, report, pace = how.get("at_most"), how.get("report"), Pace(how["rate"])
    deadline = monotonic() + at_most.total_seconds() if at_most else inf
    left = plan.left
    while True:
        if report is not None:
            report(Progress(plan.total, left))
        if not left:
            return True
        if monotonic() >= deadline:
            return False
        done = await uninterrupted(_next_batch(plans, plan.id, work, reason, pace.batch))
        left -= done
        await pace.after(done)


async def _next_batch(plans: AnyPlans[Plan], plan_id: UUID, work: Work, reason: str, size: int) -> int:
    """Do the next items; return how many there were."""
    kind, now = plans.kind, plans.database.clock.now()
    async with plans.database.transaction() as connection:
        # The state stays as it is until the transaction ends.
        if await kind.queries.state(connection, id=plan_id) == "aborted":
            raise _aborted(plan_id)
        rows = [row async for row in kind.queries.next_batch(connection, plan_id=plan_id, limit=size)]
        done = await work(connection, Batch(plan_id, rows, reason, now))
        positions = [row["position"] for row in rows]
        await kind.queries.note_done(connection, plan_id=plan_id, positions=positions, results=done.results, now=now)
        if rows:
            counts = {**dict.fromkeys(kind.results, 0), **Counter(done.results)}
            effects = {"positions": f"{positions[0]} to {positions[-1]}", **counts}
            await note(connection, Act(kind.action, f"plan {plan_id}", reason, effects))
    if done.afterwards is not None:
        await done.afterwards()
    return len(rows)


def _aborted(plan_id: UUID) -> Refused:
    return Refused("plan_aborted", f"plan {plan_id}: was aborted; make a new one for what is left")
